# Everything runs in .venv, which every target sets up when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help venv demo test nightly chaos check format bench proto clean

help:            ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY)   ## set up .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv $(VENV) || (apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV))
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	@touch $@

demo: $(READY)   ## a server forgets, learns, recalls, is killed, and still recalls
	$(BIN)/hope-serve demo

test: check      ## every check and every test that needs no GPU
	$(BIN)/python -m pytest

nightly: $(READY) ## the tests at full size: hundreds of kills, thousands of seeds
	$(BIN)/python -m pytest -m "nightly or not nightly"

check: $(READY)  ## style, types, floors, contract, freshness of generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python proto/generate.py --check

format: $(READY) ## let ruff put things in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure this machine; writes a dated file to benchmarks/results
	$(BIN)/python -m benchmarks.serving

proto: $(READY)  ## generate hope_serve/pb from proto
	$(BIN)/python proto/generate.py

clean:           ## remove everything that was set up
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
