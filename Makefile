# Each target creates the virtual environment if it is missing, and updates it when pyproject.toml or constraints.txt change.
#   make demo       run the full workflow on synthetic images, about a minute
#   make test       run the tests except the slow ones, 10 to 25 minutes on two cores
#   make test-all   run all tests: make test, test-driver, test-slow, test-long and test-processors
#   make test-slow  run the slow tests, as long
#   make test-long  run the longest tests, as long: they do at another size or on other data what other tests do
#   make test-driver      run the trt pipeline with the real PyCUDA on a fake CUDA driver; compiles PyCUDA the first time
#   make test-mutations   remove what makes rtk right on GPUs, one thing at a time: a test must fail; ten minutes
#   make test-light       run the fast tests that need no PyTorch, in an environment without it: PYTHON=python3.13;
#                         and those on the fake driver, unless WITHOUT_DRIVER=1
#   make test-processors  run the numerical tests as on lesser processors, and without a C++ compiler
#   make test-lowest      run the fast tests with the lowest versions that pyproject.toml allows; downloads gigabytes
#   make check      check formatting, lint and types
#   make format     let ruff format the code and fix what it can
#   make results    write the generated parts of README.md and docs/: tables from files, and outputs of the shown commands
#   make table      train networks of the published table for MINUTES=60
#   make gpu        run everything that needs a GPU with the interpreter PYTHON: no environment and no network are needed;
#                   again: what has not ended well; ANEW=1: all of it anew; DRY=1: what a CPU can do of it, in a minute
#   make clean      remove the environment and what was built
PYTHON ?= python3
VENV ?= .venv
LIGHT_VENV ?= .venv-light
LOWEST_VENV ?= .venv-lowest
OUT ?= $(if $(DRY),build/gpu-dry,bench/results/gpu/MACHINE)
STEPS ?=
MINUTES ?= 60
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# A test that crashes its process fails. A new process would run the same test again.
WORKERS = --numprocesses auto --max-worker-restart 0
PARALLEL = $(WORKERS) --dist loadfile
PYTEST = $(CURDIR)/$(BIN)/python -m pytest $(PARALLEL)
FAST = "not slow and not driver"
NUMERICAL = $(patsubst %,tests/%.py, \
	train/test_augment train/test_distributed train/test_parts train/test_recipes train/test_seeds train/test_train_run \
	train/test_weights \
	export/test_ensemble export/test_export_preprocessing export/test_int8 export/test_onnx export/test_reduced_precision \
	core/test_architectures core/test_blocks core/test_families core/test_images core/test_preprocessing core/test_zoo \
	infer/test_backend infer/test_openvino_backend \
	workflow/test_parity_gate bench/test_parity_faults)
ROOMS = $(patsubst %/__init__.py,%,$(wildcard */__init__.py))
LESSER_PROCESSOR = $(if $(shell grep -m 1 -o avx512vl /proc/cpuinfo 2> /dev/null), \
	ONEDNN_MAX_CPU_ISA=AVX512_CORE ATEN_CPU_CAPABILITY=avx512, ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default)
TYPED = -m rtk -m rtk.__main__ $(addprefix -p rtk.,$(ROOMS))

# Only these tests may see the fake libcuda. Without a C++ compiler there is nothing to run.
define driver_tests
	$(1)/bin/python tests/fakes/driver/build.py $(1)/driver
	if [ -e $(1)/driver/ready ]; then LD_LIBRARY_PATH=$(CURDIR)/$(1)/driver/lib PYTHONPATH=$(CURDIR)/$(1)/driver/python \
		$(1)/bin/python -m pytest $(WORKERS) -m driver tests/infer; fi
endef

.PHONY: demo test test-all test-slow test-long test-driver test-mutations test-light test-processors test-lowest check format results table gpu clean

demo: $(VENV)/installed
	$(BIN)/rtk demo

test: $(VENV)/installed-dev
	$(PYTEST) -m $(FAST)

test-all: test test-driver test-slow test-long test-processors

test-slow: $(VENV)/installed-dev
	$(PYTEST) -m "slow and not long"

test-long: $(VENV)/installed-dev
	$(PYTEST) -m long

test-driver: $(VENV)/installed-dev
	$(call driver_tests,$(VENV))

test-mutations: $(VENV)/installed-dev
	$(BIN)/python tests/fakes/driver/build.py $(VENV)/driver
	$(BIN)/python tests/mutations.py $(if $(wildcard $(VENV)/driver/ready),--driver $(VENV)/driver)

test-light: $(LIGHT_VENV)/installed
	$(LIGHT_VENV)/bin/python -m pytest $(PARALLEL) -m $(FAST)
	$(if $(WITHOUT_DRIVER),,$(call driver_tests,$(LIGHT_VENV)))

# Sums come in another order, and other kernels run. The second run has no compiler either: torch.compile cannot work;
# the tests of several processes do not use it. Where there is no AVX-512, its kernels would crash: it uses SSE 4.1.
test-processors: $(VENV)/installed-dev build/no-compiler
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m $(FAST) $(NUMERICAL)
	env -u CXX -u CC PATH=$(CURDIR)/build/no-compiler $(LESSER_PROCESSOR) \
		$(PYTEST) -m $(FAST) $(filter-out %/test_distributed.py,$(NUMERICAL))

test-lowest: $(LOWEST_VENV)/installed
	$(LOWEST_VENV)/bin/python -m pytest $(PARALLEL) -m $(FAST)

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

# A dry run needs no GPU machine's interpreter: it takes the environment's, unless PYTHON names one.
gpu: PYTHON := $(if $(and $(DRY),$(filter file,$(origin PYTHON)),$(wildcard $(BIN)/python)),$(BIN)/python,$(PYTHON))
gpu: build/types/rtk
	PYTHONPATH=$(CURDIR)/build/types$${PYTHONPATH:+:$$PYTHONPATH} \
		$(PYTHON) -m rtk.tools.gpu_checks $(OUT) $(STEPS) $(if $(DRY),--dry) $(if $(ANEW),--anew)

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

$(LIGHT_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(LIGHT_VENV)
	$(LIGHT_VENV)/bin/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]; \
		print(*(one for one in wanted if not one.startswith(("torch", "keras", "transformers"))), sep="\n")' > $(LIGHT_VENV)/wanted
	$(LIGHT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt -r $(LIGHT_VENV)/wanted
	$(LIGHT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -e .
	touch $@

$(LOWEST_VENV)/installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints-lowest.txt -e '.[test]'
	touch $@

# All programs of the PATH but the compilers.
build/no-compiler:
	mkdir -p $@
	for folder in /usr/local/bin /usr/bin /bin; do for program in $$folder/*; do case $${program##*/} in \
		*cc|*cc-[0-9]*|*++*|*clang*|*-gcc*) ;; *) ln -sf $$program $@/ ;; esac; done; done

# The root of the repository is the package. This link gives it the name `rtk` for tools that need one.
build/types/rtk:
	mkdir -p build/types
	ln -sfn ../.. build/types/rtk
