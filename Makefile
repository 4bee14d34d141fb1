# Everything that a person or CI runs here. `make help` prints the words behind the ##.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.8
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
export PYTHONPATH := api:operator:storage:data:trainer:cli:.
# Hundreds of processes of the tests import torch: compiled once, not each time.
export PYTHONDONTWRITEBYTECODE :=

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## a real cluster, two fine-tunes on it, and what came out (about 20 minutes, then 2)
	@$(PYTHON) -m examples.demo

test: setup lint test-fast test-slow test-integration test-cluster ## everything that CI runs

test-fast: setup ## no cluster, under a minute
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile -m 'not integration and not cluster and not slow'

test-slow: setup ## several processes each: real DeepSpeed ranks
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile -m 'slow and not integration and not cluster'

test-integration: setup ## a real kube-apiserver and etcd, no root
	@python3 -m devcluster build
	@$(PYTHON) -m pytest -q -n 2 --dist loadgroup -m integration

test-cluster: setup ## real pods of the real images on a one-node Kubernetes, as root
	@$(PYTHON) -m pytest -q -m cluster

fuzz: setup ## ten minutes of hostile bytes through the readers (coverage-guided)
	@$(PYTHON) -m fuzz.readers --seconds 600

bench-data: setup ## the data room beside pandas and the raw tokenizers, on a quiet machine
	@$(PYTHON) -m bench.data

bench-operator: setup ## the operator beside a bare script on kwok, on a quiet machine
	@$(PYTHON) -m bench.operator

bench-cli: setup ## how long a person waits for help
	@$(PYTHON) -m bench.cli

bench-trainer: setup ## the trainer beside TRL, bare DeepSpeed and itself, on a quiet machine
	@$(PYTHON) -m bench.trainer

docs: setup ## the documentation as a website in site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

lint: setup ## ruff, mypy, import-linter, generated files
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(PYTHON) crds/generate.py --check
	@$(PYTHON) -m docs.generate --check

format: setup ## let ruff put the code in order
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

generate: setup ## write the CRDs and the reference pages from the code
	@$(PYTHON) crds/generate.py
	@$(PYTHON) -m docs.generate

constraints: setup ## resolve all versions anew
	@$(VENV)/bin/uv pip compile pyproject.toml --all-extras --python-version 3.11 --upgrade \
		--no-emit-index-url --no-annotate --no-header -q -o constraints.txt

up: ## start the one-node Kubernetes
	@python3 -m devcluster up

kueue: up ## Kueue, the queue for Jobs, on that cluster
	@python3 -m devcluster kueue

down: ## stop it and leave nothing behind
	@python3 -m devcluster down

setup: $(READY) ## the Python environment, from constraints.txt

$(READY): pyproject.toml constraints.txt
	@echo "setup: the Python environment in $(VENV) (about a minute when nothing is cached)"
	@command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv ca-certificates; }
	@test -x $(VENV)/bin/pip || python3 -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q 'uv==$(UV_VERSION)'
	@$(VENV)/bin/uv pip install -q -p $(PYTHON) -r constraints.txt -c constraints.txt
	@$(VENV)/bin/uv pip install -q -p $(PYTHON) --no-build-isolation --no-deps -e .
	@touch $(READY)

clean: ## remove the Python environment and what tests left
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis site

.PHONY: help demo test test-fast test-slow test-integration test-cluster lint format generate fuzz bench-cli bench-data \
	bench-operator bench-trainer constraints docs up kueue down setup clean
