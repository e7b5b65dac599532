# SPDX-License-Identifier: GPL-3.0-or-later
# Every job of the repository by name. Variables: PYTHON (the interpreter), ARGS (more arguments for the job's command).
SHELL := /bin/sh
.DEFAULT_GOAL := help

STATE := .sophia
CONTROL := $(STATE)/control
export PATH := $(CURDIR)/$(CONTROL)/bin:$(PATH)
export PWD := $(CURDIR)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(STATE)/collections
export ANSIBLE_HOME := $(CURDIR)/$(STATE)/ansible
export ANSIBLE_CALLBACK_RESULT_FORMAT := yaml
export ANSIBLE_PIPELINING := true
export ANSIBLE_DISPLAY_SKIPPED_HOSTS := false

.PHONY: help
help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: control
control:
	@PIP_NO_COMPILE=1 scripts/environment $(CONTROL) requirements/control.lock
	@mkdir -p $(ANSIBLE_COLLECTIONS_PATH)/ansible_collections/sophia
	@ln -sfn $(CURDIR) $(ANSIBLE_COLLECTIONS_PATH)/ansible_collections/sophia/platform

.PHONY: quickstart
quickstart: control ## Start the gateway on this machine, with a first key and a demonstration.
	@ansible-playbook -i inventories/local sophia.platform.quickstart $(ARGS)

.PHONY: down
down: control ## Stop what `make quickstart` started.
	@ansible-playbook -i inventories/local sophia.platform.down $(ARGS)

.PHONY: preflight
preflight: control ## Report everything that stands in the way of a deployment; change nothing.
	@ansible-playbook -i inventories/local sophia.platform.preflight $(ARGS)

.PHONY: cluster
cluster: ## Bring up the test bed's Kubernetes; ARGS="--only core" for less. The kubeconfig's path comes last.
	@$(or $(PYTHON),python3) -m tests.testbed up $(ARGS)

.PHONY: cluster-down
cluster-down: ## Take the test bed's Kubernetes down; ARGS=--keep keeps its data.
	@$(or $(PYTHON),python3) -m tests.testbed down $(ARGS)

.PHONY: test
test: ## Run every height of test; ARGS="unit gateway" runs only those.
	@scripts/environment .work/venv/collection requirements/collection.lock
	@.work/venv/collection/bin/python tests/run $(ARGS)

.PHONY: test-fast
test-fast: ## Run the quick lint and the unit tests: under a minute once the environments are made.
	@scripts/environment .work/venv/collection requirements/collection.lock
	@.work/venv/collection/bin/python tests/run --fast $(ARGS)

.PHONY: lint
lint: ## Run every linter.
	@scripts/environment .work/venv/collection requirements/collection.lock
	@.work/venv/collection/bin/python tests/run lint

.PHONY: bench
bench: ## Measure the gateway beside its peers.
	@scripts/environment .work/venv/gateway requirements/gateway.lock
	@tests/bench/run tests.bench.gateway $(ARGS)
	@tests/bench/run tests.bench.gateway.streams

.PHONY: faults
faults: ## Try every fault before the gateway and its peers.
	@scripts/environment .work/venv/gateway requirements/gateway.lock
	@tests/bench/run tests.e2e.faults $(ARGS)

.PHONY: fairness
fairness: ## Measure what one busy organisation does to a quiet one.
	@scripts/environment .work/venv/gateway requirements/gateway.lock
	@PYTHONPATH=gateway_src/src:. .work/venv/gateway/bin/python -m tests.e2e.fairness --output docs/bench $(ARGS)

.PHONY: bench-cache
bench-cache: ## Measure the semantic cache: guards, rule, index, tenants, a trace.
	@scripts/environment .work/venv/gateway requirements/gateway.lock
	@PYTHONPATH=gateway_src/src:. .work/venv/gateway/bin/python -m tests.bench.cache $(ARGS)

.PHONY: docs
docs: ## Write the roles' README files from their argument_specs.
	@scripts/environment .work/venv/collection requirements/collection.lock
	@.work/venv/collection/bin/python scripts/docs $(ARGS)

.PHONY: lock
lock: ## Renew every lock file.
	@scripts/environment .work/venv/uv requirements/uv.lock
	@scripts/lock .work/venv/uv/bin/uv

.PHONY: clean
clean: ## Remove what the tests left; the quickstart's state stays.
	rm -rf .work .cache .ansible collections
