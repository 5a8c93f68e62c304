"""Decode steps captured in CUDA graphs: the host starts one graph per token instead of hundreds of kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from rlhf.engine.ranks import is_main_process
from rlhf.errors import ConfigError, RolloutError
from rlhf.rollout.step import DecodeStep, StepOutput

Graphs = Literal["auto", "on", "off"]
WARM_UPS = 2  # libraries choose kernels and allocate workspaces in the first calls, which a capture must not see


class Capture(Protocol):
    """Records a computation on tensors at fixed addresses; the result computes it again on what they hold then."""

    def __call__(self, run: Callable[[], StepOutput], changed: Sequence[Tensor]) -> Callable[[], StepOutput]: ...


class CudaCapture:
    """Captures with torch.cuda.CUDAGraph; the graphs of one instance share one pool of memory. Not measured here."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], StepOutput], changed: Sequence[Tensor]) -> Callable[[], StepOutput]:
        saved = [tensor.clone() for tensor in changed]
        stream, main = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run()
                for tensor, value in zip(changed, saved, strict=True):
                    tensor.copy_(value)
        main.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):  # records and computes nothing
            output = run()

        def replay() -> StepOutput:
            graph.replay()
            return output

        return replay


def graphs_in_words(graphs: Graphs, device: torch.device) -> str:
    """How decode steps will run, for the start of a run.

    Raises: ConfigError where graphs are asked for and there is no GPU.
    """
    if device.type == "cuda":
        return "eager (rollout.cuda_graphs=off)" if graphs == "off" else "captured in CUDA graphs"
    if graphs == "on":
        raise ConfigError(
            "CUDA graphs need a GPU, and this run has none",
            where="rollout.cuda_graphs",
            fix="set it to auto: eager steps on a CPU",
        )
    return f"eager (no CUDA graphs on {device.type})"


class GraphedSteps:
    """Runs decode steps, captured once for each shape of the cache where that is possible.

    A graph holds addresses: of the cache, of the slots' state and of the weights. A step whose cache lies elsewhere is
    captured again; weights must stay where they are while this object lives.

    Args:
        graphs: "auto" captures on a GPU, and after a failed capture runs eagerly; "on" makes that an error.
        capture: what records a step; None chooses by device.
    """

    def __init__(self, graphs: Graphs, device: torch.device, capture: Capture | None = None) -> None:
        self._graphs = graphs
        if capture is None and graphs != "off" and device.type == "cuda":
            capture = CudaCapture()
        self._capture = None if graphs == "off" else capture
        self._captured: tuple[tuple[int, ...], Callable[[], StepOutput]] | None = None

    @property
    def captures(self) -> bool:
        """Whether steps are captured."""
        return self._capture is not None

    def run(self, step: DecodeStep) -> StepOutput:
        """One step. Those with several settings at once run eagerly.

        Raises: RolloutError for a capture that fails where graphs are "on".
        """
        if self._capture is None or step.cache.column is None or step.groups[0].rows is not None:
            return step.run()
        key = _addresses(step)
        if self._captured is None or self._captured[0] != key:
            self._captured = None
            try:
                self._captured = key, self._capture(step.run, step.changed())
            except RuntimeError as error:
                self._give_up(error)
                return step.run()
        return self._captured[1]()

    def _give_up(self, error: RuntimeError) -> None:
        reason = str(error).strip().splitlines()[0]
        if self._graphs == "on":
            raise RolloutError(
                f"a decode step cannot be captured in a CUDA graph: {reason}",
                where="rollout.cuda_graphs",
                fix="set it to auto or off",
            ) from error
        self._capture = None
        if is_main_process():
            sys.stderr.write(f"note: decoding without CUDA graphs, as a step cannot be captured: {reason}\n")


def _addresses(step: DecodeStep) -> tuple[int, ...]:
    """What a captured step depends on besides the contents of its tensors."""
    keys = step.cache.slot_layers[0].keys
    assert keys is not None
    tensors = (keys, step.cache.mask, step.state.newest, step.state.uniform)
    return (*(tensor.data_ptr() for tensor in tensors), *step.cache.shape, hash(step.groups[0].decoding))
