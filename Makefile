# `make demo` and `make test` do all the set-up; each target makes what it needs.
.POSIX:
.PHONY: demo test browser-test fix bench wheel clean

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

demo: $(VENV)/installed
	$(BIN)/matir demo demo

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

# Needs Chromium, which `make test` must not: see tests/browser/check_page.py.
browser-test: $(VENV)/installed-test
	$(BIN)/pip install --quiet --editable '.[browser-test]'
	$(BIN)/pytest tests/browser/check_page.py

fix: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-test
	$(BIN)/python -m tests.bench

wheel: $(VENV)/installed-test
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist demo *.egg-info

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test,heic]'
	@touch $@
