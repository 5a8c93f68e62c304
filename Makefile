# `make quickstart` and `make test` need Python 3.11 or newer and nothing else: they make .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= runs/q
ARGS   ?=
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup quickstart test test-full test-gpu gpu-kit test-cluster test-container check format clean

help:
	@echo "make quickstart      install, then base, SFT, reward model and PPO on a tiny model (OUT=$(OUT), ARGS='--lora')"
	@echo "make test            install, then all tests"
	@echo "make test-gpu        the tests that need a CUDA GPU, about 8 minutes; without one every skip is printed"
	@echo "make gpu-kit         build/gpu-kit: a folder whose run.sh runs them, and the benchmark, without a network"
	@echo "make test-cluster    jobs on a real Slurm of two virtual nodes (installs slurm-wlm and munge when root)"
	@echo "make test-container  build docker/Dockerfile without Docker, then the quickstart in it (needs root, buildah)"
	@echo "make test-full       kills in every stage, rank count and ZeRO stage: 48 cells, about an hour"
	@echo "make check           lint, types, layers"
	@echo "make format          rewrite code as the linter wants it"

# torch first and pinned: an open range may fetch gigabytes of CUDA packages that a CPU does not need.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed

quickstart: setup
	$(BIN)/rlhf quickstart --out $(OUT) $(ARGS)

test: setup
	$(BIN)/python -m pytest

test-full: setup
	$(BIN)/python -m pytest -m full tests/integration/test_fault_matrix.py

# Recorded figures are printed at the end, and are properties of the tests in the report.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu tests/gpu -o junit_family=xunit1 --junitxml=runs/test-gpu.xml

gpu-kit: setup
	$(BIN)/python tests/gpu/kit/build.py

test-cluster: setup
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v munged >/dev/null || { \
		test "$$(id -u)" = 0 || { echo "test-cluster needs slurm-wlm and munge: apt-get install them"; exit 1; }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge; }
	$(BIN)/python -m pytest -m cluster tests/cluster

test-container: setup
	$(BIN)/python tests/container/build.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/python -m pytest --quiet tests/unit/test_layers.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
