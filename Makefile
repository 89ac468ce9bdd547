# Two things to type: make demo, make test. Both rest on make setup, which does nothing when done.
PYTHON ?= python3
VENV := .venv
LOWER := .venv-0.5.17
BIN := $(VENV)/bin

# containers often set it; every start of a server would then compile SGLang's imports anew, a minute of CPU
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup system demo test lint test-unit test-load test-deploy test-engine test-browser test-lower clean

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

test: lint test-unit test-load test-deploy test-engine test-browser test-lower

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test-unit: setup
	@$(BIN)/pytest tests/unit tests/gpu

test-load: setup
	@$(BIN)/pytest tests/loadtest

test-engine: setup
	@$(BIN)/pytest tests/engine

test-deploy: setup .venv-checkov/.ready
	@$(BIN)/pytest tests/deploy

# apart, because it pins what SGLang does not
.venv-checkov/.ready: Makefile
	@test -x .venv-checkov/bin/python || $(PYTHON) -m venv .venv-checkov
	@$(BIN)/uv pip install --quiet --python .venv-checkov/bin/python checkov==3.3.30
	@touch $@

test-browser: setup
	@$(BIN)/pytest tests/browser

# the oldest SGLang that is supported, in an environment of its own
test-lower: $(LOWER)/.ready
	@$(LOWER)/bin/pytest tests/unit --ignore tests/unit/quality tests/engine/test_seams.py tests/engine/test_conformance.py tests/engine/test_http.py tests/engine/test_serve_oea.py tests/engine/test_serve_vanilla.py

$(LOWER)/.ready: pyproject.toml constraints-0.5.17.txt
	@echo "==> installing SGLang 0.5.17 into $(LOWER), for the tests"
	@test -x $(LOWER)/bin/python || $(PYTHON) -m venv $(LOWER)
	@$(LOWER)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWER)/bin/uv pip install --quiet --python $(LOWER)/bin/python --constraint constraints-0.5.17.txt --editable '.[cpu,dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWER) .venv-checkov build *.egg-info
