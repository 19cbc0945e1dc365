# make run    set up, start learner and server (Ctrl-C stops both)
# make test   set up from nothing, lint, types, all tests
# make lock   write constraints.txt anew
# Variables: PYTHON=python3.12  VENV=.venv
#   TORCH_INDEX=URL  where PyTorch comes from; "" is the usual index, whose Linux build brings CUDA.
#                    By default PyTorch's CPU builds on Linux without an NVIDIA GPU.

PYTHON ?= python3
VENV ?= .venv
CPU_BUILDS := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	[ ! -e /proc/driver/nvidia/version ] && echo $(CPU_BUILDS))
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements.txt)
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
	$(if $(TORCH_INDEX),@echo "PyTorch from $(TORCH_INDEX) (make TORCH_INDEX= takes the usual build)"; \
		$(PIP) install --quiet --retries 1 --timeout 15 $(TORCH) --index-url $(TORCH_INDEX) || \
		echo "$(TORCH_INDEX) gives no $(TORCH): taking the usual build")
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
