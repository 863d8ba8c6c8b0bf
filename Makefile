# `make help` lists the targets. Each makes the environment first if it is not there.
PYTHON ?= python3
VENV ?= .venv
# The constraint keeps torch at a CPU build; `make run CONSTRAINTS=` takes the default (CUDA) build instead.
CONSTRAINTS ?= -c constraints-cpu.txt
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: help install run test slow test-cluster lint types check wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(READY)  ## make the environment in .venv and install er into it

$(READY): pyproject.toml constraints-cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' $(CONSTRAINTS)
	@touch $@

run: install  ## train the three arms and the adapters on embedded text, then print the table
	$(BIN)/er train experiment=quickstart
	$(BIN)/er report

test: install  ## run the tests, in up to four processes
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

slow: install  ## run the long tests and the benchmarks
	$(BIN)/python -m pytest -m slow

test-cluster: install  ## install Slurm (Debian, Ubuntu; as root), start two nodes of it, and run the tests on them
	tests/cluster/install
	$(BIN)/python -m pytest -m cluster tests/cluster

lint: install  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## check the types
	$(BIN)/mypy

check: lint types test  ## what CI runs: lint, types, tests

wheel: install  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove the environment and what tools left
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
