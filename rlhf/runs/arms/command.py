"""`rlhf arms`: trains what is missing, judges what is finished, writes the report.

Everything is checked before the first stage starts. Every arm is a run folder of its own: finished ones are kept, an
interrupted one is resumed, and one that fails does not keep the others from being compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.artifacts.files import read_json, write_json, write_text
from rlhf.config.arms import SFT, ArmsConfig, ArmSection
from rlhf.config.load import dump_values, load_config
from rlhf.config.model_paths import how_to_make, is_hub_id
from rlhf.data.embedded import data_path
from rlhf.data.records import Prompt
from rlhf.data.sources import DataSource, read_records
from rlhf.errors import ArtifactError, ModelError, TrainingError
from rlhf.evaluate.arms.trained import FINISHED, Trained
from rlhf.evaluate.report_folder import report_folder
from rlhf.html.plots import require_matplotlib
from rlhf.runs.arms.costs import ArmBudget, budget_of, draw_part, seconds_of, tokens_of
from rlhf.runs.arms.plan import ArmsPlan
from rlhf.runs.arms.unseen import require_unseen
from rlhf.runs.listing import columns
from rlhf.runs.same_settings import differing, require_same, require_same_inputs
from rlhf.train.run.chain import ChainedStage, PartTimes, check_chain

if TYPE_CHECKING:
    from rlhf.evaluate.arms.judging import JudgedArms

FREE = ("labels", "held_out", "ranks")  # may change between starts: the arms are judged again, runs resume
Topic = Callable[[str, str], bool]
TopicOf = Callable[[Sequence[str]], Topic | None]


class ArmsComparison:
    """One comparison of arms in one folder.

    Args:
        config: a YAML file, or recipe:NAME.
        words: `key=value` overrides of it.
        topic_of: from the held-out prompts to a rule that tells whether an answer is about its prompt, or None.
    """

    def __init__(
        self, config: str, out: Path, words: Sequence[str] = (), *, topic_of: TopicOf = lambda prompts: None
    ) -> None:
        self.plan = ArmsPlan(load_config(ArmsConfig, config, words), out)
        self.topic_of = topic_of
        self.times = PartTimes(self._write_times)
        self.failed: dict[str, str] = {}

    @property
    def config(self) -> ArmsConfig:
        return self.plan.config

    @cached_property
    def budgets(self) -> dict[str, ArmBudget]:
        """The budget of every arm."""
        return {arm.title: budget_of(self.plan, arm) for arm in self.config.arms}

    def prepare(self, earlier: Collection[str] = ()) -> None:
        """Refuses, before anything is trained, what would end any stage, another configuration than that of the folder,
        a judge that is not apart, and a page that could not be drawn.

        Args:
            earlier: run folders that will exist when the arms start.
        """
        plan = self.plan
        require_matplotlib()
        report_folder(plan.out)
        self._require_same_settings()
        self._require_sft(earlier)
        plan.divide()
        stages = plan.stages()
        check_chain(stages, earlier=earlier, made=plan.made_data())
        for stage in stages:
            require_same(stage.folder, stage.config())
        require_same_inputs(stage.folder for stage in stages)
        require_unseen(plan)

    def run(self) -> int:
        """Trains, judges and reports. Status 1 where an arm is not finished.

        Raises: TrainingError when a reward model cannot be trained; whatever judging raises.
        """
        self.prepare()
        write_text(self.plan.settings_file, dump_values(self.config))
        if self._times_file.is_file():
            known = read_json(self._times_file)
            self.times.seconds, self.times.cpu_seconds = known["seconds"], known["cpu_seconds"]
        for name, budget in self.budgets.items():
            drawn = f", {budget.answers:,} answers drawn" if budget.answers else ""
            sys.stderr.write(f"{name}: {budget.steps:,} steps of {budget.rows:,}{drawn}\n")
        try:
            complete = self._train_all()
        except BaseException:
            self._report(interrupted=True)
            raise
        self._report(interrupted=not complete)
        return 0 if complete and not self.failed else 1

    def _train_all(self) -> bool:
        """Trains what is missing; False where a run was asked to stop."""
        for stage in self.plan.scorers():
            self._train(stage)
        return all(self._train_arm(arm) for arm in self.config.arms)

    def _train(self, stage: ChainedStage) -> None:
        self.times.run(stage.name, stage.folder, stage.is_finished, stage.run)

    def _train_arm(self, arm: ArmSection) -> bool:
        """Trains an arm, or notes why it failed; False where it was asked to stop."""
        stage, plan = self.plan.stage(arm), self.plan
        try:
            if arm.kind == "best_of_n":
                there = stage.is_finished or plan.is_drawn(arm)
                self.times.run(draw_part(arm), plan.drawn(arm), there, lambda: plan.draw(arm))
            self._train(stage)
        except TrainingError as error:
            if plan.ended(arm)[0] == "preempted":
                return False
            self.failed[arm.title] = plan.ended(arm)[1] or error.problem
            sys.stderr.write(f"{arm.title} failed, and the others go on: {error}\n")
        return True

    def _report(self, *, interrupted: bool) -> None:
        """Judges the finished arms, unless interrupted, and writes and prints the report."""
        from rlhf.evaluate.arms.report import HEAD, arms_report, table_rows, write_arms_report

        trained = {SFT: Trained(), **{arm.title: self._trained(arm) for arm in self.config.arms}}
        there = [name for name, each in trained.items() if each.status == FINISHED]
        answered = None if interrupted or len(there) < 2 else self._judged(there)
        report = arms_report(trained, answered, judge=self.plan.judge, interrupted=interrupted)
        write_arms_report(report, answered, self.plan.out)
        verdict = report["verdict"]
        sys.stdout.write(columns([title.en for title in HEAD], table_rows(report)))
        sys.stdout.write(f"\n{verdict['en']}\n\n{verdict['ko']}\n\n{self.plan.out / 'arms.html'}\n")

    def _trained(self, arm: ArmSection) -> Trained:
        """What is known of an arm beside its answers."""
        finished = self.plan.stage(arm).is_finished
        return Trained(
            FINISHED if finished else self._why_not(arm),
            self.budgets[arm.title].as_dict(),
            seconds_of(arm, self.times.seconds),
            seconds_of(arm, self.times.cpu_seconds),
            tokens_of(self.plan, arm) if finished else {},
        )

    def _judged(self, there: Sequence[str]) -> JudgedArms:
        """The finished arms on the held-out prompts, and the rows that people may label."""
        from rlhf.evaluate.arms.judging import JudgeRequest, judge_arms
        from rlhf.evaluate.arms.votes import vote_comparisons, write_label_rows

        held_out = self.config.held_out
        source = DataSource(data_path(held_out.prompts), limit=held_out.limit)
        prompts = [each.messages[-1].content for each in read_records(source, Prompt).records]
        request = JudgeRequest(
            {name: self.config.sft if name == SFT else str(self.plan.out / name) for name in there},
            self.plan.judge,
            held_out.prompts,
            held_out.limit,
            held_out.samples,
            held_out.sampling,
            self.config.seed,
            self.plan.out / "judged",
            self.topic_of(prompts),
        )
        with self.times.timing("judging"):
            found = judge_arms(request)
        write_label_rows(found.generations, self.plan.out / "label.jsonl")
        votes = vote_comparisons(self.config.labels, found.generations) if self.config.labels else []
        return replace(found, votes=votes)

    def _why_not(self, arm: ArmSection) -> str:
        status, reason = self.plan.ended(arm)
        return self.failed.get(arm.title) or reason or status or "not started"

    def _require_same_settings(self) -> None:
        file = self.plan.settings_file
        if not file.is_file():
            return
        held = load_config(ArmsConfig, file)
        free = {name: getattr(self.config, name) for name in FREE}
        if different := differing(held.model_copy(update=free), self.config):
            raise ArtifactError(
                f"{self.plan.out} holds a comparison with other settings: {'; '.join(different)}",
                where="--out",
                fix="choose another --out; only labels, held_out and ranks may change",
            )

    def _require_sft(self, earlier: Collection[str]) -> None:
        path = Path(self.config.sft)
        made = {Path(folder) for folder in earlier} & {path, *path.parents}
        if not path.is_dir() and not made and (path.name == "model" or not is_hub_id(self.config.sft)):
            raise ModelError(
                f"no such folder: {path}",
                where="sft",
                fix=how_to_make(self.config.sft, "name a finished run of stage 1"),
            )

    @property
    def _times_file(self) -> Path:
        return self.plan.out / "times.json"

    def _write_times(self) -> None:
        write_json(self._times_file, {"seconds": self.times.seconds, "cpu_seconds": self.times.cpu_seconds})
