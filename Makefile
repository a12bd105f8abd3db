# `make help` lists the targets; each makes what it needs.
.POSIX:
.PHONY: demo test test-ray test-train test-bench browser-test gpu-check fix bench fuzz docs wheel clean help

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin

demo: $(VENV)/installed ## Draw a small gallery into demo/, index it and search it
	$(BIN)/matir demo demo

test: $(VENV)/installed-test ## Check style, types and imports, then run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# Ray is nothing that other tests need, and its processes take seconds to start.
test-ray: $(VENV)/installed-test ## Test indexing on Ray clusters, 2 to 5 minutes
	$(BIN)/pip install --quiet --editable '.[ray]'
	$(BIN)/pytest tests/cluster/check_ray.py

test-train: $(VENV)/installed-test ## Test the recipe that trains the tiny models, about 2 minutes
	$(BIN)/pytest tests/models/check_train.py tests/models/check_train_clip.py

test-bench: $(VENV)/installed-test ## Test that each bench runs, and the server under load, 2 to 3 minutes
	$(BIN)/pytest tests/bench/check_bench.py tests/server/check_load.py

# Needs Chromium, which `make test` must not: see tests/browser/check_page.py.
browser-test: $(VENV)/installed-test ## Test the HTML pages in Chromium
	$(BIN)/pip install --quiet --editable '.[browser-test]'
	$(BIN)/pytest tests/browser/check_*.py

gpu-check: $(VENV)/installed-test ## Check the engines on a CUDA GPU, up to 8 minutes
	$(BIN)/python -m tests.gpu $(ARGS)

fix: $(VENV)/installed-test ## Fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-test ## Run the benches; ARGS='--quick search' for some, at small sizes
	$(BIN)/python -m tests.bench $(ARGS)

fuzz: $(VENV)/installed-test ## Run the fuzz campaigns, up to 20 minutes; ARGS='--minutes 5 NAME' for less
	$(BIN)/python -m tests.fuzz $(ARGS)

docs: $(VENV)/installed-test ## Write the generated pages of the manual
	$(BIN)/python -m tests.manual.generate

wheel: $(VENV)/installed-test ## Build the wheel into dist/
	$(BIN)/pip wheel --no-deps --wheel-dir dist .

clean: ## Delete the environment, builds and the demo
	rm -rf $(VENV) build dist demo *.egg-info

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s%s\n", $$1, $$2 }' Makefile

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test,heic,mcp,raw,watch]'
	@# One module of it is a peer in tests; what the package depends on would be OpenCV, pandas and more.
	$(BIN)/pip install --quiet --no-deps 'label-studio-sdk>=2,<3'
	@touch $@
