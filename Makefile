# Two commands: `make run` and `make test` do all set-up. They need Python 3.11 or newer, and nothing else.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.PHONY: install install-dev run test test-system lint format docs bench clean help

help: ## What there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## The package and what it runs on, into .venv

install-dev: $(DEV) ## The tools for tests, lint and benchmarks as well

run: $(STAMP) ## Replay a market, train on it, serve the model (PORT=8000)
	$(BIN)/volspike demo --port $(PORT)

test: $(DEV) ## Every test that needs nothing but Python
	$(BIN)/python -m pytest -n auto

test-system: $(DEV) ## The whole way as a user goes it: a fresh environment, the commands, the server
	$(BIN)/python -m pytest -n 0 tests_system

lint: $(DEV) ## Style, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## Rewrite in the house's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV) ## The pages that are made from the code
	$(BIN)/python docs/generate.py

bench: $(DEV) ## Measure everything that is promised, beside its peers
	$(BIN)/python -m benchmarks --write docs/benchmarks.md

clean: ## Remove the environment and caches; data, models and reports stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "volspike needs Python 3.11 or newer; name one with make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(VENV)/bin/python requirements/base.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/base.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# bytecode and the kernel's machine code are made once, here, and not at a user's first call
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q src
	@$(BIN)/python -m volspike.features
	@touch $@

$(DEV): $(STAMP) requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	@touch $@
