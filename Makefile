# `make quickstart` and `make test` need Python 3.11 or newer and nothing else: they make .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= runs/q
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup quickstart test check format clean

help:
	@echo "make quickstart   install, then base, SFT, reward model and PPO on a tiny model (OUT=$(OUT))"
	@echo "make test         install, then all tests"
	@echo "make check        lint, types, layers"
	@echo "make format       rewrite code as the linter wants it"

# torch first and pinned: an open range may fetch gigabytes of CUDA packages that a CPU does not need.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed

quickstart: setup
	$(BIN)/rlhf quickstart --out $(OUT)

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/unit/test_layers.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
