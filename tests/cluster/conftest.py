"""One Slurm for all tests here, and the tiny data and configurations of tests/integration."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Slurm, slurm
from tests.integration.conftest import configs, korean

__all__ = ["configs", "korean"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running
