# Two commands: `make run` and `make test` do all set-up. They need Python 3.11 or newer, and nothing else.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
DATA   ?= ../shared/data
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.PHONY: install install-dev run demo test test-system e2e soak lint format docs bench results default-model clean help

help: ## What there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## The package and what it runs on, into .venv

install-dev: $(DEV) ## The tools for tests, lint and benchmarks as well

run: $(STAMP) ## A live market on http://127.0.0.1:8000: Coinbase's, or a simulated one where it cannot be reached
	$(BIN)/volspike up --port $(PORT)

demo: $(STAMP) ## Replay a recorded market, train on it, serve the model
	$(BIN)/volspike demo --port $(PORT)

test: $(DEV) ## Every test that needs nothing but Python
	$(BIN)/python -m pytest -n auto

test-system: $(DEV) ## The whole way as a user goes it, with real servers (Kafka: Java 17 and Maven; Chromium)
	sh tests_system/install_chromium
	sh tests_system/install_prometheus
	VOLSPIKE_KILLS=6 $(BIN)/python -m pytest -n 0 tests_system
	VOLSPIKE_KILLS=50 $(BIN)/python -m pytest -n 0 tests/tape/test_recorder_killed.py

e2e: $(DEV) ## The pipeline on a real Kafka from end to end, simple and full (Java 17 and Maven)
	$(BIN)/python -m tests_system.e2e simple full

soak: $(DEV) ## A day of a bad market at sixty times its speed (25 minutes), watched by a real Prometheus
	sh tests_system/install_prometheus
	$(BIN)/python -m tests_system.soak --write docs/soak.md

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

results: $(DEV) ## Train everything on both recordings and keep the figures (DATA=../shared/data)
	$(BIN)/volspike replay --raw "$(DATA)/bitflyer/*.parquet" --every 1s --feature-set deep --add-labels \
		--out build/results/bitflyer.parquet
	$(BIN)/python docs/results.py bitflyer build/results/bitflyer.parquet --fold-by day --search 0
	$(BIN)/volspike replay --raw "$(DATA)/coinbase/*.ndjson" --add-labels --out build/results/coinbase.parquet
	$(BIN)/python docs/results.py coinbase build/results/coinbase.parquet --fold-by rows --search 0
	$(BIN)/python docs/generate.py

default-model: $(STAMP) ## Train the models that ship with the package anew (DATA=../shared/data)
	$(BIN)/volspike replay --raw "$(DATA)/coinbase/*.ndjson" --out build/default/features.parquet --add-labels
	$(BIN)/volspike train --features build/default/features.parquet --models har --artifacts build/default
	cp build/default/har/model.onnx build/default/har/metadata.json src/volspike/models/default/
	$(BIN)/volspike replay --raw "$(DATA)/coinbase/*.ndjson" --out build/default/core.parquet --add-labels \
		--feature-set core
	$(BIN)/volspike train --features build/default/core.parquet --models baseline --artifacts build/default
	cp build/default/baseline/model.onnx build/default/baseline/metadata.json src/volspike/models/fallback/

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

# the tests meet every extra as it is, so that all of them are installed
EXTRAS := $(foreach extra,dev kafka tracking deep monitor ray,requirements/$(extra).txt)

$(DEV): $(STAMP) $(EXTRAS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(EXTRAS:%=--requirement %)
	@touch $@
