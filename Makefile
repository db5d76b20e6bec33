# Any Python from 3.11 on: make test PYTHON=python3.12 (after make clean, if .venv has another)
PYTHON ?= python3
VENV := .venv
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable

.PHONY: demo test lint clean

# Trains a small network on synthetic clips, then scores it on others.
demo: $(VENV)/installed
	$(VENV)/bin/python train.py --config=configs/quickstart.py --workdir=runs/quickstart
	$(VENV)/bin/python -m msitf_jax.evaluation.demo --weights=runs/quickstart/model.safetensors

# By file on two processes: compiling keeps one core busy.
test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[train]'
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) '.[train,dev]'
	touch $@ $(VENV)/installed
