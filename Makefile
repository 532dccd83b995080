# `make demo` and `make test` do all set-up on a fresh machine: a virtual environment in .venv, the
# package and what it needs. PYTHON chooses the interpreter, EXTRAS adds extras (make test EXTRAS=test,torch),
# REQUIRE adds requirements that pin them.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= test
REQUIRE ?=
BIN = $(VENV)/bin

.PHONY: demo test lint docs clean

demo: $(VENV)/installed
	$(BIN)/tardigrad demo

test: $(VENV)/installed
	$(BIN)/pip install --quiet $(REQUIRE) --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/ruff check src tests examples docs/*.py
	$(BIN)/ruff format --check src tests examples docs/*.py
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) demo site

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tardigrad needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@
