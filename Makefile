# `make run` and `make test` do all set-up themselves. They need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
DATA   ?= ../shared/data
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

.PHONY: install install-dev run demo test mutants test-system e2e soak chaos lint format docs site screenshots bench results default-model simulated-model clean help

help: ## List the commands
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## Install the package and its dependencies into .venv

install-dev: $(DEV) ## Also install all extras and the tools for tests, lint and benchmarks

run: $(STAMP) ## Start on http://127.0.0.1:8000 (PORT=8000): live Coinbase, or the simulated exchange if there is no network
	$(BIN)/volspike up --port $(PORT)

demo: $(STAMP) ## Replay a recorded market, train a model on it and serve it
	$(BIN)/volspike demo --port $(PORT)

test: $(DEV) ## Run all tests that need only Python
	$(BIN)/python -m pytest -n auto --dist worksteal

mutants: $(DEV) ## Change the code of labels, episodes, folds, purging and outcomes, and list the changes that no test notices
	$(BIN)/mutmut run
	@$(BIN)/mutmut results

test-system: $(DEV) ## Run the tests against real servers: Kafka (Java 17, Maven), Prometheus, MLflow, Chromium
	sh tests_system/install_chromium
	sh tests_system/install_prometheus
	VOLSPIKE_KILLS=50 $(BIN)/python -m pytest -n 0 tests/tape/test_recorder_killed.py  # alone: it measures what a kill loses
	VOLSPIKE_KILLS=6 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder tests_system

e2e: $(DEV) ## Run the pipeline end to end on a real Kafka, simple and full (Java 17, Maven)
	$(BIN)/python -m tests_system.e2e simple full

soak: $(DEV) ## Run the soak test: a day with faults in 25 minutes, monitored by a real Prometheus
	sh tests_system/install_prometheus
	$(BIN)/python -m tests_system.soak --write docs/soak.md

chaos: $(DEV) ## Run the chaos test: 200 faults, 50 kills and 50,000 requests in 38 minutes, compared with ground truth
	$(BIN)/python -m tests_system.chaos --write docs/soak.md
	$(BIN)/python -m tests_system.chaos.venues --minutes 3 --faults 100 --write docs/soak.md
	$(BIN)/python -m tests_system.fuzz --write docs/soak.md

lint: $(DEV) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 src  # finds what the standard library lacks on Windows
	$(BIN)/lint-imports

format: $(DEV) ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV) ## Generate the pages that come from the code
	$(BIN)/python docs/generate.py

site: $(DEV) ## Build the documentation site in build/site; broken links and anchors are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

screenshots: $(DEV) ## Take the screenshots of the documentation from the running program (Chromium)
	sh tests_system/install_chromium
	$(BIN)/python docs/screenshots.py

bench: $(DEV) ## Run all benchmarks, including those of comparable libraries
	$(BIN)/python -m benchmarks --write docs/benchmarks.md

results: $(DEV) ## Train models on every recording and write the results (DATA=../shared/data)
	$(BIN)/volspike replay --raw "$(DATA)/bitflyer/*.parquet" --every 1s --add-labels --out build/results/bitflyer.parquet
	$(BIN)/python docs/results.py bitflyer build/results/bitflyer.parquet --fold-by day --search 0 \
		--models logistic xgboost lightgbm
	$(BIN)/volspike replay --raw "$(DATA)/coinbase/*.ndjson" --add-labels --out build/results/coinbase.parquet
	$(BIN)/python docs/results.py coinbase build/results/coinbase.parquet --fold-by rows --search 0 \
		--models logistic random_forest xgboost lightgbm
	set -f; for recording in $(MARKETS); do name=$${recording%%=*}; \
		$(REPLAY) --raw "$(DATA)/$${recording#*=}" --out "build/results/$$name.parquet" && \
		$(BIN)/python docs/results.py "jump_$$name" "build/results/$$name.parquet" --search 0 --models lightgbm \
		|| exit 1; done
	$(BIN)/python docs/generate.py

# The recordings that the model for real markets learns from, and those that it is only evaluated on, each as
# name=files. A name begins with the venue, as one product may be traded at several.
LEARNED := binance_2025=sets/binance_btcusdc/*.parquet bitflyer_2018-01=bitflyer/*.parquet \
	bitflyer_2018-08=sets/two_venues_20180812/bitflyer_*.parquet btcbox_2018=sets/two_venues_20180812/btcbox_*.parquet \
	coinbase_2016=sets/coinbase_201610/*.parquet coinbase_2025=coinbase/*.ndjson \
	fxcm_2014=sets/fx_gold/fxcm_*.parquet oanda_2014=sets/fx_gold/oanda_*.parquet us_2013=sets/us_equities/*.parquet
MARKETS := $(filter-out bitflyer_2018-08=% btcbox_2018=% coinbase_2025=%,$(LEARNED))
EVALUATED := $(foreach venue,binance coinbase gemini,crash/$(venue)_2025=sets/crash_20251010/$(venue)/*.parquet)
REPLAY := $(BIN)/volspike replay --every 1s --add-labels --spike jump:2

default-model: $(STAMP) ## Retrain the models for real markets that ship with the package (DATA=../shared/data)
	set -f; for recording in $(LEARNED) $(EVALUATED); do \
		$(REPLAY) --raw "$(DATA)/$${recording#*=}" --out "build/default/$${recording%%=*}.parquet" || exit 1; done
	$(BIN)/python docs/shipped_model.py src/volspike/models/default build/default/*.parquet \
		--evaluate build/default/crash/*.parquet
	$(BIN)/volspike replay --raw "$(DATA)/coinbase/*.ndjson" --out build/fallback/core.parquet --add-labels \
		--feature-set core
	$(BIN)/volspike train --features build/fallback/core.parquet --models baseline --artifacts build/fallback
	cp build/fallback/baseline/model.onnx build/fallback/baseline/metadata.json src/volspike/models/fallback/

simulated-model: $(STAMP) ## Retrain the model for the simulated exchange on 30 simulated days
	for market in 101=BTC-USD 102=BTC-USD 103=BTC-USD 104=ETH-USD 105=ETH-USD 106=ETH-USD; do \
		$(BIN)/volspike simulate --pair "$${market#*=}" --seed "$${market%=*}" --minutes 7200 --out build/tape.parquet && \
		$(REPLAY) --raw build/tape.parquet --out "build/simulated/simulated_$${market%=*}.parquet" || exit 1; done
	$(BIN)/python docs/shipped_model.py src/volspike/models/simulated build/simulated/*.parquet

clean: ## Remove the environment and the caches, but no data, models or reports
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build

# Other packages' tests are never imported, and some packages contain files that are not valid Python.
COMPILE = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "volspike needs Python 3.11 or newer; choose one with make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# Bytecode and the kernel's machine code are compiled once, here and at the same time, not at a user's first command.
$(STAMP): $(VENV)/bin/python requirements/install.py requirements/uv.txt requirements/base.txt pyproject.toml
	$(BIN)/python requirements/install.py --requirement requirements/base.txt
	$(BIN)/python requirements/install.py --no-deps --no-build-isolation --editable .
	@echo "compiling bytecode and the feature kernel"; $(BIN)/python -c 'from volspike.features import compile_kernel; compile_kernel()' & kernel=$$!; $(COMPILE) $(VENV)/lib src; wait $$kernel
	@touch $@

# The tests cover every extra, so all of them are installed.
EXTRAS := $(foreach extra,dev kafka tracking deep monitor ray,requirements/$(extra).txt)

$(DEV): $(STAMP) $(EXTRAS)
	$(BIN)/python requirements/install.py $(EXTRAS:%=--requirement %)
	@$(COMPILE) $(VENV)/lib || true
	@touch $@
