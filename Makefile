# Two commands do everything: `make demo` trains the demo recipe, `make test` runs all checks and tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n 2 --dist worksteal
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
# What pip does for a package that it copies, but not for one that stays where it is; without it, a Python that writes no
# byte code (PYTHONDONTWRITEBYTECODE, as in many containers) compiles convrun at every start.
COMPILE := $(BIN)/python -m compileall -q convrun plugins

.PHONY: demo test lint types campaign campaign-slice schema docs clean

demo: $(VENV)/.installed
	$(BIN)/convrun run recipes/digits_demo.yaml

test: $(VENV)/.installed-dev lint types
	$(BIN)/pytest $(PYTEST_ARGS)
	$(MAKE) --no-print-directory campaign-slice

# Kills small runs at random moments, damages their files, fills their disks, and compares (docs/reliability.md).
CAMPAIGN_ARGS ?= --kills 200 --seed 0
campaign: $(VENV)/.installed-dev
	$(BIN)/python -m tests.campaign $(CAMPAIGN_ARGS)

campaign-slice: $(VENV)/.installed-dev
	$(BIN)/python -m tests.campaign --minutes 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

# The JSON Schema that the recipes' modelines point to; a test fails when it is stale.
schema: $(VENV)/.installed
	$(BIN)/convrun schema --no-plugins > recipes/recipe.schema.json

# What the documents show of convrun's output; a test fails when it is stale.
docs: $(VENV)/.installed-dev
	$(BIN)/python tests/test_documents.py
	$(BIN)/python docs/images/make_terminal.py

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not installed; on Debian and Ubuntu: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "convrun needs Python 3.11 or newer, and $(PYTHON) is older; try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing convrun and PyTorch into $(VENV), some minutes the first time (about 6 GB) ..."
	@$(PIP_INSTALL) --editable .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing convrun, PyTorch and what the tests need into $(VENV), some minutes the first time (about 6 GB) ..."
	@$(PIP_INSTALL) --editable '.[dev]'
	@$(COMPILE)
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
