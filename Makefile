# ocimirror: `make demo` shows the main job, `make test` proves everything, `make check` is the fast gate.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Three at a time, a file in one process: each has servers of its own, and most tests wait for one.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile

.PHONY: setup system demo lint check test bench clean

setup: system $(VENV)/.installed

# Debian packages: only what is absent, only as root; services must not start by themselves.
system:
	@PYTHON=$(PYTHON) bash .ci/system-packages

$(VENV)/.installed: pyproject.toml constraints.txt ocimirror/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m tests.support.demo

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST) -q tests/unit tests/stores tests/arch tests/conformance tests/sync

test: setup lint
	$(PYTEST)

bench: setup
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .cache build dist *.egg-info
