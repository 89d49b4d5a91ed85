# memr1. Each target sets up what it needs: a virtual environment in .venv, once.
SHELL := /bin/sh
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help pipeline test check bench

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

pipeline: $(STAMP)  ## Train, evaluate and register a pair on synthetic conversations, with the shipped tiny models
	$(BIN)/memr1 run quickstart

test: $(STAMP)  ## Run every test that this machine can run
	$(BIN)/python -m pytest -m ""

check: $(STAMP)  ## Lint, types, dependency direction, and the generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m flows.reference --check

BENCHMARKS := $(filter-out benchmarks/harness.py benchmarks/fine_tuning.py benchmarks/running.py $(if $(DATA),,benchmarks/retrieval.py),$(wildcard benchmarks/*.py))
bench: $(STAMP)  ## Measure the published figures again (DATA=locomo10.json: the retrieval too); into benchmarks/results
	@for script in $(BENCHMARKS); do echo "$$script"; $(BIN)/python "$$script" $(if $(DATA),--data $(DATA)) || exit 1; done

# --compile-bytecode: without it every short-lived process would compile the libraries it imports once more.
$(STAMP): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh .ci/prerequisites
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'
	$(BIN)/python -m memr1.rl.compile > $(VENV)/compile.log 2>&1 || { cat $(VENV)/compile.log; exit 1; }
	@touch $@
