# make demo: environment, then the whole main job on the built-in data set.
# make test: environment, then lint, types and tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

.PHONY: demo test env clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nasmvt needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: env
	rm -rf $(DEMO)
	$(BIN)/nasmvt train-supernet --out $(DEMO)
	$(BIN)/nasmvt search $(DEMO) --budget 1M
	$(BIN)/nasmvt compare $(DEMO)
	$(BIN)/nasmvt export $(DEMO)
	$(BIN)/nasmvt evaluate $(DEMO)/export
	$(BIN)/nasmvt predict $(DEMO)/export --min-score 0.15 --out $(DEMO)/predictions

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
