#!/usr/bin/env bash
# Runs the GPU kit where it lies, without a network and without changing the machine's Python: doctor, the GPU tests
# point by point, the benchmark. Results go to $OUT (default: ./out), seven files. Words are those of steps.py, such as
#   bash run.sh --seconds 560            a shorter total
#   bash run.sh doctor attention         these steps alone
#   bash run.sh --device cpu --tiny      tries the kit itself
# PYTHON names the interpreter (default: python3).
set -euo pipefail

kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
mkdir -p "${OUT:=out}"
OUT=$(cd "$OUT" && pwd)
site=$kit/site # installed once: ops that DeepSpeed builds are built again when its files are newer
if [ ! -f "$site/.installed" ]; then
	rm -rf "$site"
	"$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
		--target "$site" "$kit"/wheels/*.whl
	touch "$site/.installed"
fi
export OUT PYTHONPATH="$site:$kit/source${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
"$python" "$kit/source/tests/gpu/kit/steps.py" "$@"
