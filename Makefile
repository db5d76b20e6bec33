# Any Python from 3.11 on: make test PYTHON=python3.12 (after make clean, if .venv has another)
PYTHON ?= python3
VENV := .venv
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable

.PHONY: demo test lint docs-check dist dist-check clean

# Upscales a clip that it draws, scores it, and says where the page is that compares it.
demo: $(VENV)/installed
	$(VENV)/bin/msitf demo

# By file on two processes: compiling keeps one core busy.
test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# The source distribution and the wheel, in dist.
dist: $(VENV)/installed-dev
	$(VENV)/bin/python -m build

# Builds them elsewhere and tries each in an empty environment of PYTHON: about five minutes.
dist-check: $(VENV)/installed-dev
	$(VENV)/bin/python -m tests.distributions $(PYTHON)

# Links of the pages, and their commands, tried on small files that it draws.
docs-check: $(VENV)/installed-dev
	$(VENV)/bin/python -m tests.docs_check

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[train,dev]'
	touch $@ $(VENV)/installed
