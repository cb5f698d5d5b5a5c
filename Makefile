# Everything happens in .venv; a second call does not install again.
PYTHON ?= python3
ENV ?= CartPole-v1
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: train test lint types mutants compare parity clean

train: .venv/installed  ## train CartPole-v1 (make train ENV=Acrobot-v1 for another)
	$(BIN)/reweigh train $(ENV)

test: .venv/installed-dev  ## every test
	$(BIN)/python -m pytest --numprocesses 2

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

mutants: .venv/installed-dev  ## break the code on purpose; every change must be noticed
	$(BIN)/python tests/mutants.py

compare: .venv/installed-environments .venv-compare/installed  ## PPO, SAC and reweigh, measured alike
	.venv-compare/bin/python benchmarks/peers.py

parity: .venv-parity/installed  ## the same numbers as rlax, TorchRL, TRL, verl, arviz-stats and SCOPE-RL
	.venv-parity/bin/python -m pytest parity

clean:
	rm -rf .venv .venv-compare .venv-parity

# PyTorch first and alone: a package that pulls it in by a range would take a far larger build.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

.venv/installed-environments: .venv/installed
	$(PIP) --editable '.[mujoco,box2d]'
	touch $@

# An environment of its own: what reweigh is compared with never decides what reweigh runs on.
.venv-compare/installed: constraints.txt
	$(PYTHON) -m venv .venv-compare
	$(subst .venv,.venv-compare,$(PIP)) torch
	$(subst .venv,.venv-compare,$(PIP)) stable-baselines3==2.9.2 "gymnasium[mujoco,box2d]" pyarrow
	touch $@

# reweigh itself is imported from here. verl comes without what it requires: it pins older versions
# than TorchRL and TRL take, and its functions that are compared run with these.
PARITY_PIP := $(subst .venv,.venv-parity,$(BIN)/python) -m pip install --quiet \
  --disable-pip-version-check -c parity/constraints.txt
.venv-parity/installed: parity/constraints.txt
	$(PYTHON) -m venv .venv-parity
	$(PARITY_PIP) torch
	$(PARITY_PIP) rlax torchrl trl arviz-stats scope-rl ray omegaconf orjson codetiming pytest deltalake
	$(PARITY_PIP) --no-deps verl
	touch $@
