# make venv   the environment in $(VENV), with the tested versions; does nothing when it is up to date
# make demo   a simulated line from end to end: picture and summary
# make test   the tests
# make lint   style, types, and the layers
#
# PYTHON=python3.12 chooses the interpreter (3.10 or newer) that makes the environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: venv demo test lint clean
.DEFAULT_GOAL := venv

venv: $(STAMP)

NATIVE := $(wildcard efficientad_stream/backends/native/*.cpp efficientad_stream/backends/native/*.inl \
	efficientad_stream/backends/native/*.h)

$(STAMP): pyproject.toml setup.py constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "$(PYTHON) is older than 3.10; choose another: make venv PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,distill]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/efficientad-stream demo

test: $(STAMP)
	@$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
