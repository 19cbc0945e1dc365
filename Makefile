# make run    set up, start learner and server (Ctrl-C stops both)
# make test   set up from nothing, lint, types, all tests
# make lock   write constraints.txt anew
# Variables: PYTHON=python3.12  VENV=.venv  TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: run test lint lock clean
.DEFAULT_GOAL := run

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Autodidact needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/.run: requirements.txt constraints.txt | $(BIN)/python
	@echo "installing what Autodidact needs; the first time this takes a few minutes"
	$(if $(TORCH_INDEX),$(PIP) install --quiet torch==2.13.0 --index-url $(TORCH_INDEX))
	$(PIP) install --quiet -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PIP) install --quiet -r requirements-dev.txt -c constraints.txt
	@touch $@

run: $(VENV)/.run
	@$(BIN)/python -m autodidact run

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

lock: | $(BIN)/python
	$(PIP) install --quiet uv==0.13.8
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links \
		requirements.txt requirements-dev.txt --output-file constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
