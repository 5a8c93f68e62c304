"""Which parameters decay, and how fast each learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhf.config.sections import LrGroup
from rlhf.engine.groups import parameter_groups
from rlhf.errors import ConfigError


def model() -> nn.Module:
    layers = nn.ModuleDict({"embed": nn.Embedding(3, 2), "dense": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    layers["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    return layers


def found(*lr_groups: tuple[str, float]) -> list[tuple[set[str], float, float]]:
    made = model()
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    groups = parameter_groups(
        made.named_parameters(), 0.1, [LrGroup(match=match, scale=scale) for match, scale in lr_groups]
    )
    return [
        ({names[id(each)] for each in group["params"]}, group["weight_decay"], group["lr_scale"]) for group in groups
    ]


def test_without_groups_matrices_decay_and_vectors_do_not() -> None:
    assert found() == [
        ({"embed.weight", "dense.weight"}, 0.1, 1.0),
        ({"dense.bias", "norm.weight", "norm.bias"}, 0.0, 1.0),
    ]


def test_the_first_match_wins_and_the_rest_learn_at_the_plain_rate() -> None:
    assert found(("embed", 0.5), (r"norm|weight$", 2.0)) == [
        ({"embed.weight"}, 0.1, 0.5),
        ({"dense.weight"}, 0.1, 2.0),
        ({"norm.weight", "norm.bias"}, 0.0, 2.0),
        ({"dense.bias"}, 0.0, 1.0),
    ]


def test_a_partitioned_matrix_is_known_by_its_whole_shape() -> None:
    made = nn.Linear(2, 2, bias=False)
    made.weight.data = torch.empty(0)
    made.weight.ds_shape = torch.Size([2, 2])  # type: ignore[attr-defined]
    assert parameter_groups(made.named_parameters(), 0.1)[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("match", ["embedd", "frozen"])
def test_a_pattern_that_matches_no_trained_parameter_names_near_ones(match: str) -> None:
    with pytest.raises(ConfigError, match=f"{match}' matches no trained parameter") as caught:
        found(("dense", 2.0), (match, 0.5))
    assert caught.value.where == "lr_groups.1.match"
    if match == "embedd":
        assert "embed.weight" in caught.value.expected
