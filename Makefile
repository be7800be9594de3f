# Two commands do everything: `make demo` trains the demo recipe, `make test` runs all checks and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2 --dist worksteal

.PHONY: demo test lint types schema clean

demo: $(VENV)/.installed
	$(BIN)/convrun run recipes/digits_demo.yaml

test: $(VENV)/.installed-dev lint types
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# The JSON Schema that the recipes' modelines point to; a test fails when it is stale.
schema: $(VENV)/.installed
	$(BIN)/convrun schema --no-plugins > docs/recipe.schema.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("convrun needs Python 3.11 or newer; try make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
