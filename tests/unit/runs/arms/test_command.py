"""A comparison of arms as a command: what is refused first, what is kept, what is said when it is stopped.

Runs are made by hand on tiny models, so that nothing is trained; where a stage would be started, a function stands for
the launcher and leaves what a run leaves.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from transformers import GPTNeoXForCausalLM

from rlhf.artifacts.files import read_json, sha256_of, write_json, write_text
from rlhf.artifacts.run_folder import RunFolder
from rlhf.cli import main
from rlhf.config.load import dump_config
from rlhf.curate.output import manifest_path
from rlhf.data.tokenizer import ChatTokenizer
from rlhf.demo.tiny_base import polyglot_shape
from rlhf.errors import ArtifactError, ConfigError, DataError, ModelError, TrainingError
from rlhf.runs.arms import plan as arms_plan
from rlhf.runs.arms.command import ArmsComparison
from rlhf.train.run import chain
from rlhf.train.run.chain import ChainedStage
from tests.conftest import SHAPE, _saved
from tests.unit.runs.arms.conftest import THINGS

ARMS = """
arms:
  - {kind: best_of_n, config: recipe:demo/sft, k: 2, sampling: {max_new_tokens: 8, max_prompt_tokens: 96}}
  - {kind: dpo, config: recipe:demo/dpo, set: [eval.max_rows=4]}
  - {kind: ppo, config: recipe:demo/ppo, set: [ppo.rollout_size=8, train.batch_size=8, train.warmup_steps=0]}
"""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory, chat_tokenizer: ChatTokenizer) -> dict[str, Path]:
    """A model for each arm and the SFT model."""
    found = {}
    for seed, name in enumerate(("sft", "best_of_n", "dpo", "ppo"), 5):
        found[name] = folder = tmp_path_factory.mktemp(name) / "model"
        config = polyglot_shape(SHAPE, len(chat_tokenizer.tokenizer))
        _saved(GPTNeoXForCausalLM, config, folder, chat_tokenizer.tokenizer, seed=seed)
        chat_tokenizer.save(folder)
    return found


@dataclass
class Setting:
    """A configuration with its models, and what was started."""

    folder: Path
    models: dict[str, Path]
    started: list[str] = field(default_factory=list)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    ranks: list[int | None] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def comparison(self, *words: str) -> ArmsComparison:
        return ArmsComparison(str(self.folder / "arms.yaml"), self.out, (*self.words, *words))

    def finish(self, stage: ChainedStage) -> None:
        """What a finished run leaves."""
        shutil.copytree(self.models[stage.name], stage.folder / "model", dirs_exist_ok=True)
        write_text(stage.folder / "config.yaml", dump_config(stage.config()))
        line = {"step": 1, "tokens": 40, "rollout/tokens_per_s": 20.0, "time/rollout_s": 2.0}
        write_text(stage.folder / "metrics.jsonl", json.dumps(line) + "\n")
        RunFolder(stage.folder).set_state("finished", stage=stage.stage, step=1)

    def start(self, stage: str, arguments: Sequence[str], *, ranks: int | None) -> int:
        """In place of the launcher: ends as `ends` says, finished by default."""
        self.ranks.append(ranks)
        folder = next(Path(word.partition("=")[2]) for word in arguments if word.startswith("run.dir="))
        self.started.append(folder.name)
        status, reason = self.ends.get(folder.name, ("finished", ""))
        if status == "finished":
            made = next(each for each in self.comparison().plan.stages() if each.name == folder.name)
            self.finish(made)
            return 0
        folder.mkdir(parents=True, exist_ok=True)
        RunFolder(folder).set_state(status, stage=stage, step=1, reason=reason)  # type: ignore[arg-type]
        return 1

    def command(self, words: Sequence[str], *, ranks: int | None) -> int:
        """In place of the draw of best-of-n."""
        self.ranks.append(ranks)
        self.started.append("draw")
        out = Path(words[words.index("--out") + 1])
        write_text(out, '{"prompt": "가", "response": "나"}\n')
        write_json(manifest_path(out), {"tokens": 77})
        return 0


@pytest.fixture
def setting(
    tmp_path: Path,
    rankings: Path,
    policies: dict[str, Path],
    tiny_reward: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Setting:
    held_out = tmp_path / "held_out.jsonl"
    rows = [json.dumps({"prompt": f"{thing} 있어요?"}, ensure_ascii=False) for thing in THINGS[:12]]
    write_text(held_out, "\n".join(rows) + "\n")
    text = f"""
sft: {policies["sft"]}
preferences: {{path: {rankings}, dev: 0.1, judge: 0.3}}
reward: {{config: recipe:demo/reward}}
judge: {{config: recipe:demo/reward}}
held_out: {{prompts: {held_out}, samples: 1, sampling: {{max_new_tokens: 6, max_prompt_tokens: 96}}}}
{ARMS}"""
    write_text(tmp_path / "arms.yaml", text)
    made = Setting(tmp_path, {**policies, "reward": tiny_reward, "judge": tiny_reward})
    monkeypatch.setattr(chain, "start_stage", made.start)
    monkeypatch.setattr(arms_plan, "start_command", made.command)
    return made


def test_every_arm_is_trained_once_and_judged(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert setting.comparison().run() == 0
    assert setting.started == ["reward", "judge", "draw", "best_of_n", "dpo", "ppo"]
    arms = read_json(setting.out / "arms.json")
    assert list(arms) == ["sft", "best_of_n", "dpo", "ppo"]
    for name, arm in arms.items():
        assert {"reward", "interval", "kl", "polite", "on_topic", "seconds"} <= arm.keys()
        assert (arm["kl"] == 0) == (name == "sft")
    assert arms["best_of_n"]["tokens"] == {"trained": 40, "sampled": 77}
    assert arms["ppo"]["tokens"] == {"trained": 40, "sampled": 40}  # one minibatch; 20 tokens/s for 2 s
    assert arms["dpo"]["seconds_by_part"].keys() == {"train"}
    assert arms["best_of_n"]["seconds_by_part"].keys() == {"reward", "draw", "train"}
    times = read_json(setting.out / "times.json")
    for kind in ("seconds", "cpu_seconds"):
        assert arms["dpo"][f"{kind}_by_part"] == {"train": round(times[kind]["dpo"], 1)}
        assert arms["dpo"][kind] == round(times[kind]["dpo"], 1)
    shown = capsys.readouterr()
    assert "dpo: 14 steps of 8\n" in shown.err  # two epochs of 54 rankings
    assert read_json(setting.out / "report.json")["verdict"]["en"] in shown.out
    assert len((setting.out / "label.jsonl").read_text(encoding="utf-8").splitlines()) == 12
    setting.started.clear()
    assert setting.comparison().run() == 0  # again: all is there
    assert setting.started == []


def test_every_part_is_started_with_the_ranks_asked_for_which_may_change(setting: Setting) -> None:
    setting.ends["ppo"] = ("preempted", "asked to stop")
    assert setting.comparison("ranks=3").run() == 1
    assert setting.ranks == [3] * 6
    setting.ends.clear()
    assert setting.comparison().run() == 0
    assert setting.ranks == [*[3] * 6, None]


def test_a_finished_arm_is_not_repeated(setting: Setting) -> None:
    comparison = setting.comparison()
    comparison.prepare()
    for stage in comparison.plan.stages():
        if stage.name in ("reward", "dpo"):
            setting.finish(stage)
    assert comparison.run() == 0
    assert setting.started == ["judge", "draw", "best_of_n", "ppo"]


def test_a_stopped_arm_stops_the_command_which_goes_on_when_it_is_given_again(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    setting.ends["dpo"] = ("preempted", "asked to stop")
    assert setting.comparison().run() == 1
    assert setting.started == ["reward", "judge", "draw", "best_of_n", "dpo"]
    report = read_json(setting.out / "report.json")
    assert report["verdict"]["outcome"] == "interrupted"
    assert "Not finished: dpo (asked to stop), ppo (not started)." in capsys.readouterr().out
    assert not (setting.out / "judged").exists()
    setting.started.clear()
    setting.ends.clear()
    assert setting.comparison().run() == 0
    assert setting.started == ["dpo", "ppo"]


def test_an_arm_that_fails_leaves_the_others_to_be_compared(setting: Setting) -> None:
    setting.ends["dpo"] = ("failed", "the loss is not finite")
    assert setting.comparison().run() == 1
    assert setting.started[-1] == "ppo"
    arms = read_json(setting.out / "arms.json")
    assert "reward" in arms["ppo"]
    assert "reward" not in arms["dpo"]
    verdict = read_json(setting.out / "report.json")["verdict"]
    assert verdict["outcome"] != "interrupted"
    assert verdict["en"].endswith("dpo did not finish and is not compared (the loss is not finite).")


def test_without_a_reward_model_nothing_goes_on(setting: Setting) -> None:
    setting.ends["reward"] = ("failed", "no memory")
    with pytest.raises(TrainingError, match="no memory"):
        setting.comparison().run()
    assert read_json(setting.out / "report.json")["verdict"]["outcome"] == "interrupted"


def test_another_configuration_in_the_same_folder_is_refused(setting: Setting) -> None:
    setting.comparison().run()
    setting.started.clear()
    with pytest.raises(ArtifactError, match=r"other settings: arms\.1\.set = .*dpo\.beta=0\.3"):
        setting.comparison("arms.1.set=[dpo.beta=0.3]").run()
    with pytest.raises(ArtifactError, match="seed = 17, not 18"):
        setting.comparison("seed=18").run()
    assert setting.comparison("held_out.limit=11", "held_out.samples=2").run() == 0
    assert setting.started == []
    assert read_json(setting.out / "report.json")["num_prompts"] == 11


def test_a_changed_file_of_a_stage_is_refused(setting: Setting) -> None:
    file = setting.folder / "dpo.yaml"
    write_text(file, "base: recipe:demo/dpo\n")
    words = (f"arms.1.config={file}",)
    setting.comparison(*words).run()
    write_text(file, "base: recipe:demo/dpo\ndpo: {beta: 0.3}\n")
    with pytest.raises(ArtifactError, match=r"dpo\.beta = 0\.1, not 0\.3"):
        setting.comparison(*words).run()


def test_runs_from_another_sft_model_or_other_prompts_are_not_kept(setting: Setting, tmp_path: Path) -> None:
    sft = shutil.copytree(setting.models["sft"], tmp_path / "sft" / "model")
    prompts = tmp_path / "prompts.jsonl"
    write_text(prompts, "".join(f'{{"prompt": "{thing}?"}}\n' for thing in THINGS))
    setting.words = (f"sft={sft}", f"prompts={prompts}")
    setting.comparison().run()
    entry = {"role": "train", "path": str(prompts), "sha256": sha256_of(prompts)}
    parents = {"actor": {"path": str(sft), "sha256": sha256_of(sft)}, "reward": {"path": "gone", "sha256": "1"}}
    write_json(setting.out / "ppo" / "manifest.json", {"stage": "ppo", "data": [entry], "parents": parents})
    assert setting.comparison().run() == 0
    write_text(prompts, '{"prompt": "다른 말?"}\n' * 20)
    with pytest.raises(ArtifactError, match=r"out/ppo: was made from .*prompts\.jsonl, which has changed since"):
        setting.comparison().run()
    write_json(setting.out / "ppo" / "manifest.json", {"stage": "ppo", "data": [], "parents": parents})
    shutil.copytree(setting.models["dpo"], sft, dirs_exist_ok=True)
    with pytest.raises(ArtifactError, match=r"out/ppo: was made from .*sft/model, which has changed since"):
        setting.comparison().run()


@pytest.mark.parametrize(
    ("word", "error", "said"),
    [
        ("sft=runs/none/model", ModelError, "sft: no such folder: runs/none/model"),
        ("preferences.path=none.jsonl", DataError, "none.jsonl"),
        ("held_out.prompts={rankings}", DataError, "held_out.prompts"),
        ("judge.data={rankings}", DataError, "of the judge's"),
        ("arms.2.set=[train.lrr=1]", ConfigError, "train.lrr"),
        ("prompts=none.jsonl", ConfigError, "stage ppo  data.train"),
        ("arms.1.set=[train.warmup_steps=90]", ConfigError, "stage dpo  train.warmup_steps"),
    ],
)
def test_everything_is_checked_before_the_first_stage(
    setting: Setting, rankings: Path, word: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as refused:
        setting.comparison(word.format(rankings=rankings)).run()
    assert said in str(refused.value)
    assert setting.started == []


def test_votes_are_read_when_they_are_there(setting: Setting) -> None:
    setting.comparison().run()
    rows = [json.loads(line) for line in (setting.out / "label.jsonl").read_text(encoding="utf-8").splitlines()]
    ranks = {"sft": 2, "best_of_n": 2, "dpo": 1, "ppo": 3}
    labels = setting.folder / "labels.jsonl"
    for row in rows:
        row["ranks"] = [ranks[name] for name in row["models"]]
    write_text(labels, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert setting.comparison(f"labels={labels}").run() == 0
    votes = {(each["of"], each["minus"]): each for each in read_json(setting.out / "report.json")["votes"]}
    assert votes["dpo", "sft"]["mean"] == 0.5
    assert votes["ppo", "sft"]["mean"] == -0.5
    assert votes["best_of_n", "sft"]["mean"] == 0.0


def test_the_topic_is_measured_where_its_rule_knows_the_prompts(setting: Setting) -> None:
    asked: list[Sequence[str]] = []

    def topic_of(prompts: Sequence[str]) -> Callable[[str, str], bool]:
        asked.append(prompts)
        return lambda prompt, text: True

    setting.comparison().run()
    assert read_json(setting.out / "arms.json")["ppo"]["on_topic"] is None
    ArmsComparison(str(setting.folder / "arms.yaml"), setting.out, topic_of=topic_of).run()
    assert read_json(setting.out / "arms.json")["ppo"]["on_topic"] == 1.0
    assert asked == [[f"{thing} 있어요?" for thing in THINGS[:12]]]


def test_the_command_refuses_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arms", "recipe:demo/arms", "sft=runs/none/model", "--out", str(tmp_path / "out")]) == 1
    assert "ModelError: sft: no such folder: runs/none/model" in capsys.readouterr().err
    assert main(["quickstart", "--arms", "--data", str(tmp_path), "--out", str(tmp_path / "q")]) == 1
    assert "ConfigError: --arms --data: the arms of the quickstart are those of the embedded data" in (
        capsys.readouterr().err
    )
