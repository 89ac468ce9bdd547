# Two things to type: make demo, make test. Both rest on make setup, which does nothing when done.
PYTHON ?= python3
VENV := .venv
LOWER := .venv-0.5.17
BIN := $(VENV)/bin

# containers often set it; every start of a server would then compile SGLang's imports anew, a minute of CPU
unexport PYTHONDONTWRITEBYTECODE

# What make test runs; make test-nightly leaves out nothing.
ONLY := not nightly
# Two processes for tests without a server, of one thread each: four would fight for two cores.
PAIR := OMP_NUM_THREADS=1
FLAGS := --durations=25 --durations-min=1
PYTEST = $(BIN)/pytest $(FLAGS)

.PHONY: setup system demo check test test-nightly clean
.PHONY: lint test-unit test-kernel test-load test-deploy test-engine test-browser test-servers test-lower

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "oea-server needs Python 3.11 or later; try: make PYTHON=python3.11 ...")'
	@echo "==> installing SGLang and its libraries into $(VENV): 10 GB on disk, a minute or several"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[cpu,dev,load]'
	@touch $@

# what the tests use that is no Python package; without it they say so and skip
system:
	apt-get install -y --no-install-recommends chromium chromium-driver docker-compose prometheus

demo: setup
	@$(BIN)/oea-server demo

# for every commit, under a minute: lint, types, and the routing without Triton's interpreter
check: lint
	@$(PAIR) $(BIN)/pytest -q -n 2 -m "not interpreter and not nightly" $(ROUTING)

ROUTING := $(patsubst %,tests/unit/test_%.py,routing_reference routing_properties pools tally schedule settings)

PARTS := lint test-unit test-kernel test-load test-deploy test-engine test-browser test-servers test-lower

test:
	@bash tests/parts.sh $(PARTS)

# everything, before an issue is resolved and once a night
test-nightly:
	@bash tests/parts.sh $(PARTS) ONLY="nightly or not nightly" LOWER_MORE="$(LOWER_NIGHTLY)" LOWER_LESS=

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test-unit: setup
	@$(PAIR) $(PYTEST) -n 2 -m "$(ONLY)" tests/unit

# what Triton compiles for a GPU, in an interpreter of PTX, or on the GPU that is there
test-kernel: setup
	@$(PAIR) $(PYTEST) -n 2 -m "$(ONLY)" tests/ptx tests/gpu

test-load: setup
	@$(PAIR) $(PYTEST) -n 2 -m "$(ONLY)" tests/loadtest

test-deploy: setup .venv-checkov/.ready
	@$(PAIR) $(PYTEST) -n 2 -m "not server and ($(ONLY))" tests/deploy

test-engine: setup
	@$(PAIR) $(PYTEST) -n 2 -m "not server and ($(ONLY))" tests/engine

test-browser: setup
	@$(PYTEST) -m "not server and ($(ONLY))" tests/browser

# whatever needs a server, in one run: each kind of them is started once
test-servers: setup
	@$(PYTEST) -m "server and ($(ONLY))" tests/deploy/test_live.py tests/browser tests/engine tests/deploy/test_cpu_demo.py

# apart, because it pins what SGLang does not
.venv-checkov/.ready: Makefile
	@test -x .venv-checkov/bin/python || $(PYTHON) -m venv .venv-checkov
	@$(BIN)/uv pip install --quiet --python .venv-checkov/bin/python checkov==3.3.30
	@touch $@

# the oldest SGLang that is supported, in an environment of its own: where we touch it, and vanilla to the bit
LOWER_UNIT := tests/unit/test_plugin.py tests/unit/test_routing_reference.py tests/unit/test_fused_compiles.py
LOWER_UNIT += $(wildcard tests/unit/test_cpu_*.py)
LOWER_ENGINE := $(patsubst %,tests/engine/test_%.py,seams guard options conformance)
LOWER_SERVED := tests/engine/test_conformance.py tests/engine/test_serve_vanilla.py
LOWER_LESS := -k "not batch_of_one"
LOWER_NIGHTLY := tests/unit tests/engine/test_http.py tests/engine/test_serve_oea.py
LOWER_MORE :=

test-lower: $(LOWER)/.ready
	@$(PAIR) $(LOWER)/bin/pytest $(FLAGS) -n 2 -m "not server and ($(ONLY))" $(LOWER_ENGINE) $(LOWER_UNIT) $(LOWER_MORE) --ignore tests/unit/quality
	@$(LOWER)/bin/pytest $(FLAGS) -m "server and ($(ONLY))" $(LOWER_SERVED) $(LOWER_MORE) $(LOWER_LESS)

$(LOWER)/.ready: pyproject.toml constraints-0.5.17.txt
	@echo "==> installing SGLang 0.5.17 into $(LOWER), for the tests"
	@test -x $(LOWER)/bin/python || $(PYTHON) -m venv $(LOWER)
	@$(LOWER)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWER)/bin/uv pip install --quiet --python $(LOWER)/bin/python --constraint constraints-0.5.17.txt --editable '.[cpu,dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWER) .venv-checkov build *.egg-info
