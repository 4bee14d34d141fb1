# The commands for users, contributors, and CI. `make help` prints the text after each ##.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV_VERSION := 0.13.8
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/ready
SLOWEST := --durations=15
# Files in the order of tests/conftest.py: those that take longest run first.
BY_FILE := --dist loadfile --no-loadscope-reorder
# Hundreds of test processes import torch: keep its bytecode, even if the environment says otherwise.
export PYTHONDONTWRITEBYTECODE :=

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## run two fine-tunes on a real one-node cluster (25 minutes the first time, then 4; CLUSTER=kind: in Docker)
	@$(PYTHON) -m examples.demo $(if $(CLUSTER),--cluster $(CLUSTER))

check: lint test-fast ## lint and the fast tests, before each commit

test: setup lint test-fast test-slow test-integration test-cluster ## everything that CI runs

test-fast: setup ## the tests that need no cluster
	@$(PYTHON) -m pytest -q -n 2 --dist loadfile -m 'not integration and not cluster and not slow'

test-slow: setup ## the tests that start several processes each, with real DeepSpeed ranks
	@$(PYTHON) -m pytest -q -n 2 $(BY_FILE) $(SLOWEST) -m 'slow and not integration and not cluster'

test-integration: setup ## the tests with a real kube-apiserver and etcd, without root
	@python3 -m devcluster build
	@$(PYTHON) -m pytest -q -n 3 $(BY_FILE) $(SLOWEST) -m integration

test-cluster: setup ## the tests with real pods of the real images, as root
	@$(PYTHON) -m pytest -q $(SLOWEST) -m cluster

sweep: setup ## crash the operator at every write of every lifecycle, in half an hour
	@python3 -m devcluster build
	@$(PYTHON) -m tests.integration.sweep.sweep

sweep-storage: setup ## kill trainer and prepare Job at every write to S3, in half an hour
	@$(PYTHON) -m tests.trainer.storage_sweep.sweep bench/results/storage-sweep.json

fuzz: setup ## fuzz the readers for ten minutes, guided by coverage
	@$(PYTHON) -m fuzz.readers --seconds 600

bench-data: setup ## compare the data package with pandas and plain tokenizers, on an idle machine
	@$(PYTHON) -m bench.data

bench-operator: setup ## compare the operator with a script, on kwok and an idle machine
	@$(PYTHON) -m bench.operator

bench-cli: setup ## measure how long the command line takes to print its help
	@$(PYTHON) -m bench.cli

bench-gateway: setup ## measure what the gateway adds to a completion, on an idle machine
	@$(PYTHON) -m bench.gateway

bench-trainer: setup ## compare the trainer with TRL and plain DeepSpeed, on an idle machine
	@$(PYTHON) -m bench.trainer

bench-gpu: setup ## check and measure the trainer on one GPU, in eight minutes
	@$(PYTHON) -m bench.gpu

rehearse-gpu: setup ## run the same parts with tiny shapes on the CPU, which measures nothing
	@$(PYTHON) -m bench.gpu --rehearse

measure-memory: setup ## measure what the page "What fits where" is tested with, in ten minutes
	@$(PYTHON) -m tests.trainer.memory.sweep

docs: setup ## build the documentation website in site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

lint: setup lint-code lint-types lint-imports lint-project lint-generated ## every check without a test

lint-code: setup ## check the code with ruff
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

lint-types: setup ## check the types with mypy
	@$(VENV)/bin/mypy

lint-imports: setup ## check the layers with import-linter
	@$(VENV)/bin/lint-imports --no-cache

lint-project: setup ## check sizes, import cycles, package lists, and prose
	@$(PYTHON) -m lint

lint-generated: setup ## check that the CRDs and reference pages match the code
	@$(PYTHON) crds/generate.py --check
	@$(PYTHON) -m docs.generate --check

format: setup ## format the code and fix what ruff can fix
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

generate: setup ## write the CRDs and the reference pages from the code
	@$(PYTHON) crds/generate.py
	@$(PYTHON) -m docs.generate

constraints: setup ## resolve all versions again
	@$(VENV)/bin/uv pip compile pyproject.toml --all-extras --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-annotate --no-header -q -o constraints.txt

images: ## build the four images, list their packages, and check these for known vulnerabilities
	@python3 -m images build
	@python3 -m images sbom

up: ## start the one-node Kubernetes
	@python3 -m devcluster up

kueue: up ## install Kueue, the job queue, on that cluster
	@python3 -m devcluster kueue

down: ## stop that cluster and remove everything it created
	@python3 -m devcluster down

setup: $(READY) ## create the Python environment from constraints.txt

$(READY): pyproject.toml constraints.txt
	@echo "setup: creating the Python environment in $(VENV) (about a minute with an empty cache)"
	@command -v python3 >/dev/null && python3 -c 'import venv, ensurepip' 2>/dev/null \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv ca-certificates; }
	@test -x $(VENV)/bin/pip || python3 -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -q 'uv==$(UV_VERSION)'
	@$(VENV)/bin/uv pip install -q -p $(PYTHON) -r constraints.txt -c constraints.txt
	@$(VENV)/bin/uv pip install -q -p $(PYTHON) --no-build-isolation --no-deps -e .
	@touch $(READY)

clean: ## remove the Python environment and the caches of the tools
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache site

.PHONY: help demo check test test-fast test-slow test-integration test-cluster lint lint-code lint-types lint-imports \
	lint-project lint-generated format generate fuzz bench-cli bench-data bench-gateway bench-gpu \
	rehearse-gpu bench-operator bench-trainer measure-memory constraints \
	docs images up kueue down setup clean sweep sweep-storage
