# Distribu: `make` alone tells what there is.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready-$(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null)
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test check bench prove format lock clean

help:  ## Show this.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c '' || { echo "Python 3.11 or newer is needed; make PYTHON=/path/to/python3.11 names one"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "installing Debian's package for virtual environments"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; }
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "installing what is locked in requirements.txt"
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY)  ## Serve a demo company at http://127.0.0.1:8000, on a database of its own.
	@DISTRIBU_DATA_DIR=$${DISTRIBU_DATA_DIR:-$(CURDIR)/.distribu} $(BIN)/distribu serve --demo

test: $(READY)  ## Run every test; PostgreSQL comes along.
	@$(BIN)/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile

check: $(READY)  ## Lint, format, types, import contracts, and secrets by mistake.
	@$(BIN)/ruff check -q src tests
	@$(BIN)/ruff format -q --check src tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/unit/test_secrets.py

bench: $(READY)  ## Measure CPU, round trips and rates against a floor.
	@$(BIN)/python -m tests.benchmarks

prove: $(READY)  ## The long proofs: crashes, races at size, planted bugs.
	@$(BIN)/python -m pytest -q tests/proofs

format: $(READY)  ## Put the code into shape.
	@$(BIN)/ruff check -q --fix src tests; $(BIN)/ruff format -q src tests

lock: $(READY)  ## Lock the newest dependencies that fit.
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --all-extras --group dev --group build pyproject.toml -o requirements.txt

clean:  ## Remove what was made here, the demo's data included.
	@rm -rf $(VENV) .distribu .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
