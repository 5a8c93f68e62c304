"""Every error a user can meet. Each says what was given, where, what was expected and the fix.

RlhfError
├── ConfigError          a YAML file, an override or a key; lists every problem at once
├── DataError            a data file or a row in it
├── TemplateError        a chat template that cannot be used
├── TokenizerError       a tokenizer that would train a broken model
├── ModelError           a model folder, its weights, LoRA targets
├── ArtifactError        a run folder, manifest or exported model
│   ├── CheckpointError  a checkpoint that is absent, damaged or of another run
│   └── RunLockedError   a run folder another process is using
├── RolloutError         generation that cannot be done as asked
├── EndpointError        a language-model service that does not answer, or refuses to
│   └── BudgetError      the next request could cost more than is left to spend
├── TrainingError        a run that failed while it ran
│   ├── EngineError      a rollout engine that ended, hangs or disagrees with the trainer
│   └── NonFiniteError   a loss or gradient that is not finite; the optimizer did not step
└── PreemptedError       a run that was asked to stop, and has saved what it did
"""

from __future__ import annotations

from importlib.util import find_spec


class RlhfError(Exception):
    """Base of all errors of this package.

    Args:
        problem: what was given and why it cannot be used.
        where: file and line, config key or step.
        expected: what would have been accepted.
        fix: what to do now.
    """

    def __init__(self, problem: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        self.problem, self.where, self.expected, self.fix = problem, where, expected, fix
        super().__init__(self.render())

    def render(self) -> str:
        """The message as shown: one line of problem, then `expected:` and `fix:` where known."""
        lines = [f"{self.where}: {self.problem}" if self.where else self.problem]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  fix:      {self.fix}")
        return "\n".join(lines)


class ConfigError(RlhfError):
    """One or more configuration problems; `problems` holds each as its own `ConfigError`."""

    def __init__(
        self,
        problem: str,
        *,
        where: str = "",
        expected: str = "",
        fix: str = "",
        problems: tuple[ConfigError, ...] = (),
    ) -> None:
        self.problems = problems
        super().__init__(problem, where=where, expected=expected, fix=fix)

    @classmethod
    def collect(cls, problems: list[ConfigError]) -> ConfigError:
        """Joins several problems into one error that shows them all."""
        if len(problems) == 1:
            return problems[0]
        text = "\n".join(problem.render() for problem in problems)
        return cls(f"{len(problems)} configuration problems\n{text}", problems=tuple(problems))


class DataError(RlhfError):
    """A data file or row that cannot be used."""


class TemplateError(RlhfError):
    """A chat template that cannot be used."""


class TokenizerError(RlhfError):
    """A tokenizer that would train a broken model."""


class ModelError(RlhfError):
    """A model folder, its weights or its adapters."""


class ArtifactError(RlhfError):
    """A run folder, manifest or exported model."""


class CheckpointError(ArtifactError):
    """A checkpoint that is absent, damaged or of another run."""


class RunLockedError(ArtifactError):
    """A run folder that another process is using."""


class RolloutError(RlhfError):
    """Generation that cannot be done as asked."""


class EndpointError(RlhfError):
    """A language-model service that does not answer, or refuses to."""


class BudgetError(EndpointError):
    """The next request could cost more than is left to spend; what came before it is kept."""


class TrainingError(RlhfError):
    """A run that failed while it ran."""


class EngineError(TrainingError):
    """A rollout engine that ended, hangs, or disagrees with the trainer; the trainer's own state is whole."""


class NonFiniteError(TrainingError):
    """A loss or gradient that is not finite; the optimizer did not step."""


class PreemptedError(RlhfError):
    """A run that was asked to stop, and has saved what it did."""


def require_packages(*modules: str, extra: str, needed_by: str, where: str = "", otherwise: str = "") -> None:
    """Checks that modules of an optional extra are installed, without importing them.

    Args:
        extra: the extra of pyproject.toml that installs them.
        needed_by: the subject of the message, such as "the service".
        otherwise: how to go on without them, such as "set model.quantize=none".

    Raises: ConfigError that names the missing packages and the command that installs them.
    """
    missing = [name.replace("_", "-") for name in modules if find_spec(name) is None]
    if missing:
        install = f"pip install -e '.[{extra}]' in the checkout"
        raise ConfigError(
            f"{needed_by} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            where=where,
            fix=f"{install}, or {otherwise}" if otherwise else install,
        )
