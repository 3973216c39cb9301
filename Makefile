# Two commands set everything up by themselves: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
SEED ?= 0

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(VENV)/bin/inbol demo --out $(OUT) --seed $(SEED)

test: $(VENV)/.installed-test
	$(VENV)/bin/pytest -n 2 -m "not slow"

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs
