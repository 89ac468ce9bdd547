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

# An environment with what a lock names, by hash; what must be built is built by what the lock names.
define install
@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
@sed -n '/^uv==/,/[^\\]$$/p' $(2) > $(1)/uv.txt
@$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(1)/uv.txt
@$(1)/bin/uv pip install --quiet --python $(1)/bin/python --require-hashes --build-constraints $(2) --requirement $(2)
endef
# ours, on top, and the demo model
editable = @$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --build-constraints $(2) \
	--editable . --editable oea_server/lab/demo/models

.PHONY: help setup system demo check test test-nightly pins sbom audit clean
.PHONY: lint test-unit test-kernel test-load test-deploy test-engine test-browser test-servers test-lower

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "%-14s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready  ## install everything into .venv, pinned and hashed; nothing if it is there

$(VENV)/.ready: pyproject.toml constraints.txt oea_server/lab/demo/models/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "oea-server needs Python 3.11 or later; try: make PYTHON=python3.11 ...")'
	@echo "==> installing SGLang and its libraries into $(VENV): 10 GB on disk, a minute or several"
	$(call install,$(VENV),constraints.txt)
	$(call editable,$(VENV),constraints.txt)
	@touch $@

# what the tests use that is no Python package; without it they say so and skip
system:  ## what tests use that is no Python package (apt-get)
	apt-get install -y --no-install-recommends chromium chromium-driver docker-compose prometheus g++ ninja-build

demo: setup  ## chat with a small model, vanilla and with OEA
	@$(BIN)/oea-server demo

# for every commit, under a minute: lint, types, and the routing without Triton's interpreter
check: lint  ## before each commit, under a minute: lint, types, the routing
	@$(PAIR) $(BIN)/pytest -q -n 2 -m "not interpreter and not nightly" $(ROUTING)

ROUTING := $(patsubst %,tests/unit/test_%.py,routing_reference routing_properties pools tally schedule settings)

PARTS := lint test-unit test-kernel test-load test-deploy test-engine test-browser test-servers test-lower

test:  ## all tests but the nightly ones, some 40 minutes
	@bash tests/parts.sh $(PARTS)

# everything, before an issue is resolved and once a night
test-nightly:  ## all tests, the nightly ones too
	@bash tests/parts.sh $(PARTS) ONLY="nightly or not nightly" LOWER_MORE="$(LOWER_NIGHTLY)" LOWER_LESS=

lint: setup  ## ruff, mypy, and how well the documents read
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m oea_server.lab.reference.readability

test-unit: setup  ## of test: without SGLang's engine, Triton in its interpreter
	@$(PAIR) $(PYTEST) -n 2 -m "$(ONLY)" tests/unit

# what Triton compiles for a GPU, in an interpreter of PTX, or on the GPU that is there
test-kernel: setup  ## of test: compiled kernels, in an interpreter of PTX or on the GPU that is there
	@$(PAIR) $(PYTEST) -n 2 -m "$(ONLY)" tests/ptx tests/gpu

test-load: setup  ## of test: the load test, against a stub
	@$(PAIR) $(PYTEST) -n 2 -m "$(ONLY)" tests/loadtest

test-deploy: setup .venv-checkov/.ready .venv-audit/.ready  ## of test: image, Compose, Kubernetes, alerts, locks
	@$(PAIR) $(PYTEST) -n 2 -m "not server and ($(ONLY))" tests/deploy

test-engine: setup  ## of test: SGLang's own classes, without a server
	@$(PAIR) $(PYTEST) -n 2 -m "not server and ($(ONLY))" tests/engine tests/documents

test-browser: setup  ## of test: the live page, in Chromium
	@$(PYTEST) -m "not server and ($(ONLY))" tests/browser

# whatever needs a server, in one run: each kind of them is started once
test-servers: setup  ## of test: whatever needs a server, each kind started once
	@$(PYTEST) -m "server and ($(ONLY))" tests/deploy/test_live.py tests/browser tests/engine tests/documents tests/deploy/test_cpu_demo.py

# apart, because they pin what SGLang does not
.venv-%/.ready: constraints-%.txt
	$(call install,.venv-$*,$<)
	@touch $@

# the oldest SGLang that is supported, in an environment of its own: where we touch it, and vanilla to the bit
LOWER_UNIT := tests/unit/test_plugin.py tests/unit/test_materialise.py tests/unit/test_triton_experts.py
LOWER_UNIT += tests/unit/test_routing_reference.py tests/unit/test_fused_compiles.py tests/unit/test_releases.py
LOWER_UNIT += $(wildcard tests/unit/test_cpu_*.py)
LOWER_ENGINE := $(patsubst %,tests/engine/test_%.py,seams rules guard options conformance wishes)
LOWER_SERVED := tests/engine/test_conformance.py tests/engine/test_serve_vanilla.py
LOWER_LESS := -k "not batch_of_one"
LOWER_NIGHTLY := tests/unit tests/engine/test_http.py tests/engine/test_serve_oea.py
LOWER_MORE :=

test-lower: $(LOWER)/.ready  ## of test: the oldest SGLang that is supported
	@$(PAIR) $(LOWER)/bin/pytest $(FLAGS) -n 2 -m "not server and ($(ONLY))" $(LOWER_ENGINE) $(LOWER_UNIT) $(LOWER_MORE) --ignore tests/unit/quality
	@$(LOWER)/bin/pytest $(FLAGS) -m "server and ($(ONLY))" $(LOWER_SERVED) $(LOWER_MORE) $(LOWER_LESS)

$(LOWER)/.ready: pyproject.toml constraints-0.5.17.txt
	@echo "==> installing SGLang 0.5.17 into $(LOWER), for the tests"
	$(call install,$(LOWER),constraints-0.5.17.txt)
	$(call editable,$(LOWER),constraints-0.5.17.txt)
	@touch $@

# The locks anew: for Linux, x86-64 and arm64, Python 3.11 and 3.12. What is locked stays where it still fits;
# UPGRADE=--upgrade takes the newest of all, UPGRADE='--upgrade-package NAME' of one.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate
COMPILE += --custom-compile-command "make pins" $(UPGRADE) - --output-file
SEED := pip setuptools uv
# What torch's CPU build requires, which comes from another index; and dill, which SGLang imports, and has by way of
# datasets alone.
CPU_NEEDS := filelock fsspec jinja2 networkx setuptools sympy typing-extensions dill
# the demo model, which is this repository's
NOT_LOCKED := --no-emit-package oea-server-demo

pins: setup  ## write the locks anew; newer releases by UPGRADE=--upgrade
	@printf '%s\n' $(SEED) | $(COMPILE) constraints.txt --all-extras $(NOT_LOCKED) pyproject.toml
	@printf '%s\n' $(SEED) sglang==0.5.17 | $(COMPILE) constraints-0.5.17.txt --all-extras $(NOT_LOCKED) pyproject.toml
	@printf '%s\n' $(SEED) checkov==3.3.30 | $(COMPILE) constraints-checkov.txt
	@printf '%s\n' $(SEED) cyclonedx-bom pip-audit | $(COMPILE) constraints-audit.txt
	@printf '%s\n' $(CPU_NEEDS) | $(COMPILE) deploy/docker/requirements-cpu.txt --constraints constraints.txt \
		--excludes deploy/docker/cpu-excludes.txt --extra cpu pyproject.toml
	@printf '%s\n' sglang-router==0.3.2 | $(COMPILE) deploy/k8s/components/router/requirements.txt

# what is installed, as CycloneDX; of an image: deploy/docker/sbom.sh IMAGE
sbom: setup .venv-audit/.ready  ## write what is installed, as CycloneDX, to sbom.json
	@.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml $(BIN)/python --output-file sbom.json

# known vulnerabilities of what is locked, from PyPI's advisories
audit: .venv-audit/.ready  ## known vulnerabilities of what is locked
	@.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --requirement constraints.txt

clean:  ## delete the environments and what was built
	rm -rf $(VENV) $(LOWER) .venv-checkov .venv-audit build *.egg-info
