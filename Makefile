# Every target makes what it needs: the virtual environment once, and again when pyproject.toml or constraints.txt change.
#   make demo       the whole road on drawn shapes, about a minute
#   make test       the tests, under five minutes
#   make test-all   the slow ones too, under twenty
#   make check      formatting, lint, types
#   make table      trains the networks of the published table while there is time: MINUTES=60
#   make results    the README's tables from the zoo and bench/results, and what the commands shown print
#   make gpu        everything that wants a GPU, with the interpreter PYTHON as it is: no environment, no network
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

# The root of the repository is the package: tools that want it under its name find it through this link.
build/types/rtk:
	mkdir -p build/types
	ln -sfn ../.. build/types/rtk
