# make demo    a small world, trained and served in a few minutes
# make test    the tests
# make help    everything else
#
# PYTHON=python3.12    which Python makes the environment (3.11 or newer)
# PIP_FLAGS=…          more flags for pip: a mirror, or an index with CPU-only builds of torch

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
PIP_FLAGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := train,dev,embedded
TORCH := torch==2.13.0  # raised by hand: where we test, newer ones come only with gigabytes of CUDA
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-all lint format check bench docs lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(INSTALLED)  ## make .venv with all that demo and tests need

demo: $(INSTALLED)  ## generate a small world, train on it, serve it with the console
	$(BIN)/pinsage demo

test: $(INSTALLED)  ## the tests, without those that take minutes
	$(BIN)/python -m pytest -m "not slow"

test-all: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## put the code into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## what must hold before a commit

bench: $(INSTALLED)  ## every benchmark at small size
	@for bench in bench/*.py; do echo "== $$bench"; $(BIN)/python "$$bench" --small || exit 1; done

docs: $(INSTALLED)  ## write the page of settings from the settings
	$(BIN)/python docs/write_configuration.py

lock: $(BIN)/python  ## resolve all versions anew and write them into constraints.txt
	rm -rf build/lock && $(BIN)/python -m venv build/lock
	build/lock/bin/python -m pip install $(PIP_FLAGS) $(TORCH) '.[$(EXTRAS)]'
	sed '/^#/!d' constraints.txt > build/lock/constraints.txt
	build/lock/bin/python -m pip freeze --all --exclude pinsage --exclude pip | sed -e 's/+[[:alnum:].]*$$//' \
		-e '/^nvidia-/d;/^cuda-/d;/^triton==/d' >> build/lock/constraints.txt  # torch itself names these, build by build
	mv build/lock/constraints.txt constraints.txt

clean:  ## remove the environment and all caches
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "pinsage needs Python 3.11 or newer: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pinsage needs Python 3.11 or newer; $(PYTHON) is another: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
		{ echo "pinsage needs a C++ compiler (hnswlib comes as source): install g++ or clang" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 2; }
