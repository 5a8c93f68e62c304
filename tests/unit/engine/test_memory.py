"""Free memory and allocator settings of a GPU, with what its driver and torch would say injected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rlhf.engine.memory import ALLOCATOR_VARIABLES, free_memory, grow_segments

GIB = 2**30
CARD = torch.device("cuda", 1)


def on_a_card(monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int, allocated: int) -> None:
    def said(value: object) -> Callable[[torch.device], object]:
        def of(device: torch.device) -> object:
            assert device == CARD
            return value

        return of

    monkeypatch.setattr(torch.cuda, "mem_get_info", said((free, 40 * GIB)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", said(reserved))
    monkeypatch.setattr(torch.cuda, "memory_allocated", said(allocated))


def test_what_torch_keeps_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a training step on a tight card nearly all of what is free lies in the allocator's own blocks."""
    on_a_card(monkeypatch, free=2 * GIB, reserved=37 * GIB, allocated=30 * GIB)
    assert free_memory(CARD) == (2 + 37 - 30) * GIB


def test_nothing_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(monkeypatch, free=5 * GIB, reserved=30 * GIB, allocated=30 * GIB)
    assert free_memory(CARD) == 5 * GIB


@pytest.mark.parametrize("name", [None, *ALLOCATOR_VARIABLES])
def test_segments_grow_unless_the_user_has_set_the_allocator(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    for variable in ALLOCATOR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    if name is not None:
        monkeypatch.setenv(name, "max_split_size_mb:64")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", given.append)
    grow_segments()
    assert given == ([] if name else ["expandable_segments:True"])


def test_a_cpu_has_no_such_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch._C, "_accelerator_setAllocatorSettings")
    grow_segments()
