# Each target creates the virtual environment if it is missing, and updates it when pyproject.toml or constraints.txt change.
#   make demo       run the full workflow on synthetic images, about a minute
#   make test       run the tests except the slow ones, under five minutes
#   make test-all   run all tests, under twenty minutes
#   make check      check formatting, lint and types
#   make format     let ruff format the code and fix what it can
#   make results    write the generated parts of README.md and docs/: tables from files, and outputs of the shown commands
#   make table      train networks of the published table for MINUTES=60
#   make gpu        run everything that needs a GPU with the interpreter PYTHON: no environment and no network are needed
#   make clean      remove the environment and what was built
PYTHON ?= python3
VENV ?= .venv
OUT ?= bench/results/gpu
STEPS ?=
MINUTES ?= 60
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PYTEST = $(BIN)/python -m pytest --numprocesses auto --dist loadfile
ROOMS = $(patsubst %/__init__.py,%,$(wildcard */__init__.py))
TYPED = -m rtk -m rtk.__main__ -m rtk.api $(addprefix -p rtk.,$(ROOMS))

.PHONY: demo test test-all check format results table gpu clean

demo: $(VENV)/installed
	$(BIN)/rtk demo

test: $(VENV)/installed-dev
	$(PYTEST) -m "not slow"

test-all: test
	$(PYTEST) -m slow

check: $(VENV)/installed-dev build/types/rtk
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=build/types $(BIN)/python -m mypy $(TYPED)

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

results: $(VENV)/installed
	$(BIN)/python -m rtk.tools.readme_tables

table: $(VENV)/installed
	$(BIN)/python -m rtk.tools.train_published --minutes $(MINUTES)

gpu: build/types/rtk
	PYTHONPATH=$(CURDIR)/build/types $(PYTHON) -m rtk.tools.gpu_checks $(OUT) $(STEPS)

clean:
	rm -rf build dist demo *.egg-info $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/installed

# The root of the repository is the package. This link gives it the name `rtk` for tools that need one.
build/types/rtk:
	mkdir -p build/types
	ln -sfn ../.. build/types/rtk
