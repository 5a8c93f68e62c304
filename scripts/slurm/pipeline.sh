#!/bin/bash
# The three stages as Slurm jobs, each started when the one before has finished.
#
#   scripts/slurm/pipeline.sh [SBATCH OPTION ...] FOLDER [STAGE:key=value ...]
#   scripts/slurm/pipeline.sh --nodes=2 --gpus-per-node=8 configs/kullm-5.8b sft:train.lr=1e-5 ppo:run.seed=3
#
# FOLDER holds sft.yaml, reward.yaml and ppo.yaml; the paths in them say which run starts from which. Options are
# written with `=`. All three, with their
# data, models and warm-up, are checked before anything is queued; a stage that is finished is not queued again.

set -euo pipefail

stop() {
    echo "pipeline.sh: $*" >&2
    exit 1
}

declare -A scripts=([sft]=step1_sft [reward]=step2_reward [ppo]=step3_ppo)
stages=(sft reward ppo)
options=()
while [[ ${1:-} == -* ]]; do
    options+=("$1")
    shift
done
[[ $# -ge 1 ]] || stop "usage: pipeline.sh [SBATCH OPTION ...] FOLDER [STAGE:key=value ...]"
folder=$1
shift
for word in "$@"; do
    [[ $word =~ ^(sft|reward|ppo):.+=.+$ ]] || stop "$word is not STAGE:key=value, with sft, reward or ppo as STAGE"
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export RLHF_ROOT=${RLHF_ROOT:-$root}

words_of() { # the words of stage $1, one a line
    local word
    for word in "${@:2}"; do
        [[ $word != "$1":* ]] || printf '%s\n' "${word#*:}"
    done
}

declare -A runs
earlier=() # --after RUN of the stages before
for stage in "${stages[@]}"; do
    mapfile -t words < <(words_of "$stage" "$@")
    runs[$stage]=$(rlhf ready --parents later "${earlier[@]}" "$stage" --config "$folder/$stage.yaml" "${words[@]}")
    earlier+=(--after "${runs[$stage]}")
done

before=
for stage in "${stages[@]}"; do
    if grep --quiet '"status": "finished"' "${runs[$stage]}/state.json" 2>/dev/null; then
        echo "$stage: ${runs[$stage]} is finished"
        continue
    fi
    mapfile -t words < <(words_of "$stage" "$@")
    after=()
    [[ -z $before ]] || after=(--dependency="afterok:$before" --kill-on-invalid-dep=yes)
    before=$(sbatch --parsable --job-name="rlhf-$stage" "${options[@]}" "${after[@]}" \
        "$root/scripts/slurm/train.sbatch" "${scripts[$stage]}" "$folder/$stage.yaml" "${words[@]}" --resume auto)
    before=${before%%;*} # on a federation the cluster's name follows
    echo "$stage: job $before, into ${runs[$stage]}"
done
