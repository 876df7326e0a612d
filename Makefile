# What this project can do: `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
PYTHON := $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && command -v $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
COUNT := awk '/^Collecting/ { printf "\r  %d packages", ++n; fflush() } END { if (n) print "" }'
UV := $(shell command -v uv)
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make lock" pyproject.toml -

.DEFAULT_GOAL := help
.PHONY: help up test check bench chaos lock clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(VENV)/.runs ## Start everything here and send demo mail; ARGS="--no-demo --data DIR ..." passes options
	@exec $(BIN)/postroad up $(ARGS)

test: $(VENV)/.tests check ## Run every check and every test; ARGS="-k word" passes options to pytest
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 1 $(ARGS)

check: $(VENV)/.tests ## Lint, formatting, types, import rules, installed versions, known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PIP) check
	$(BIN)/python -m tests.dependency_audit

bench: $(VENV)/.runs ## Measure how fast this machine sends; ARGS="--mails 20000" passes options
	@exec $(BIN)/postroad bench $(ARGS)

chaos: $(VENV)/.tests ## Break everything while mail flows, and count what was lost or doubled (about 12 minutes)
	@CHAOS=long exec $(BIN)/python -m pytest --timeout 1800 tests/chaos $(ARGS)

lock: ## Write the lock files anew from pyproject.toml (needs uv)
	@test -n "$(UV)" || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	echo 'setuptools>=80' | $(LOCK) --extra all --output-file deploy/requirements.txt
	echo 'setuptools>=80' | $(LOCK) --extra test --constraint deploy/requirements.txt --output-file tests/requirements.txt

clean: ## Remove the environment, caches and the local stack's data
	rm -rf $(VENV) .postroad build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "postroad needs Python 3.11 or 3.12; none was found on PATH." >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runs: deploy/requirements.txt pyproject.toml | $(BIN)/python
	@echo "Installing what postroad runs on (the first time takes about a minute)"
	@$(PIP) install --require-hashes --progress-bar off -r $< | $(COUNT)
	@$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.tests: tests/requirements.txt $(VENV)/.runs
	@echo "Installing what the tests need"
	@$(PIP) install --require-hashes --progress-bar off -r $< | $(COUNT)
	@touch $@
