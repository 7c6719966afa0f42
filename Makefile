# Everything a developer runs. Each target says what it could not do and why.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run test test-agents test-live cluster faults check bench lock agents docs clean

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.setup-done
# Two workers: the smallest machine the suite must be quick on has two cores.
WORKERS ?= 2
# Further arguments for pytest or the benchmarks, as in `make test ARGS="-k keeper"`.
ARGS   ?=
# For `make run`: AGENT=codex fetches and uses the real program; ONCE=1 ends with the run.
AGENT  ?=
ONCE   ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## make .venv with the overnight command from the hash-locked requirements

$(STAMP): requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "setup: no $(PYTHON) on PATH; Overnight needs Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $$($(PYTHON) -V) is too old; Overnight needs Python 3.11 or newer (PYTHON=… names another)" >&2; exit 1; }
	@echo "setup: making $(VENV) from requirements-dev.lock; this takes a minute the first time"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { echo "setup: $(PYTHON) cannot make environments; on Debian install python3-venv" >&2; exit 1; }
	@$(PY) -m pip install --quiet --retries 10 --timeout 60 --disable-pip-version-check --no-input --root-user-action=ignore --require-hashes -r requirements-dev.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore --no-deps --no-build-isolation -e .
	@$(VENV)/bin/overnight --help >/dev/null
	@touch $@
	@echo "setup: done; the command is $(VENV)/bin/overnight"

run: setup ## run a sample job to its end, live, then keep the server up (AGENT=agent|sample|codex|claude, ONCE=1)
	@$(PY) -m overnight.testing.demo $(if $(AGENT),--agent '$(AGENT)') $(if $(filter-out 0 no false,$(ONCE)),--once)

demo-agent: setup ## let the built-in agent mend a test, its model on the server and a tool on another host (no network)
	@$(PY) -m overnight.testing.demo_agent $(ARGS)

test: setup ## run every test, those with the real agent programs among them (ARGS=…)
	@$(PY) -m overnight.testing.agents install usual || echo "test: without them, the tests marked real_agents are skipped" >&2
	@$(PY) -m pytest -n $(WORKERS) --dist loadscope $(ARGS)

test-agents: setup ## fetch every pinned agent program (about 2 GB) and drive each one (ARGS=…)
	@$(PY) -m overnight.testing.agents install all
	@OVERNIGHT_TEST_AGENTS=1 $(PY) -m pytest -m real_agents tests/backends tests/sandbox tests/e2e $(ARGS)

test-live: setup ## ask every provider of models that has a key here; a limit that is reached is a skip (ARGS=…)
	@OVERNIGHT_TEST_LIVE=1 $(PY) -m pytest -rs -m live tests/live $(ARGS)

cluster: setup ## start Postgres, Valkey, two servers and three workers, kill one of each, and judge (ARGS=…)
	@$(PY) -m overnight.testing.cluster show $(ARGS)

faults: setup ## break three servers and four workers by chance for five minutes, and judge (ARGS="--seed N …")
	@$(PY) -m overnight.testing.cluster faults $(ARGS)

check: setup ## lint, formatting, types, import law, and reference pages that match the code
	@failed=""; step() { echo "check: $$1"; "$${@:2}" || failed+="; $$1"; }; \
	step "lint"            $(PY) -m ruff check --quiet --output-format concise .; \
	step "formatting"      $(PY) -m ruff format --check --quiet .; \
	step "types"           $(PY) -m mypy; \
	step "import law"      $(VENV)/bin/lint-imports --no-cache --no-logo; \
	step "reference pages" $(PY) docs/generate.py --check; \
	test -z "$$failed" || { echo "check: failed: $${failed#; }" >&2; exit 1; }; \
	echo "check: all good"

docs: setup ## write docs/reference from the code
	@$(PY) docs/generate.py

bench: setup ## print the benchmarks with the limit of this machine beside each (ARGS=…)
	@$(PY) -m bench $(ARGS)

agents: setup ## fetch the pinned agent programs that the tests drive into a cached folder (about 1 GB)
	@$(PY) -m overnight.testing.agents install usual

lock: ## resolve the requirements anew and write the hash-locked files (needs uv)
	@uv="$$(command -v uv || echo $(VENV)/bin/uv)"; \
	test -x "$$uv" || { echo "lock: uv is missing; install it with: $(PY) -m pip install uv" >&2; exit 1; }; \
	options="--quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS)"; \
	"$$uv" pip compile $$options --output-file requirements.lock pyproject.toml >/dev/null; \
	"$$uv" pip compile $$options --group dev --group build --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml >/dev/null; \
	"$$uv" pip compile $$options --group peers --output-file requirements-peers.lock >/dev/null; \
	"$$uv" pip compile $$options --group pyproject.toml:build --constraint requirements-dev.lock --output-file deploy/requirements-build.lock >/dev/null
	@! grep -nE '://|--(index|extra|find|trusted)' requirements.lock requirements-dev.lock requirements-peers.lock deploy/requirements-build.lock || { echo "lock: a lock names a host" >&2; exit 1; }
	@echo "lock: requirements.lock, requirements-dev.lock, requirements-peers.lock and deploy/requirements-build.lock are written; ARGS=--upgrade takes newer versions"

clean: ## remove the environment, caches and reports (never a data directory)
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache reports build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean: done"
