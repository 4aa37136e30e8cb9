# SPDX-License-Identifier: Apache-2.0
# The front door: `make quickstart` and `make test` need nothing but make, g++, python3-venv and python3-dev.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# Index of the torch install alone, for people who want a CPU-only wheel (PyTorch's install page names it).
TORCH_INDEX ?=
# hotcoco computes AP a hundred times faster than pycocotools, simplejpeg decodes faster than Pillow; both can be missed.
FAST ?= hotcoco==1.3.0 simplejpeg==1.9.0
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(BIN)/python -m pip install --quiet

# Stamps: the files whose age says what was done last. The torch stamp carries the request, so that TORCH= counts.
STAMPS := $(VENV)/.stamps
REQUEST := $(shell printf '%s' '$(TORCH) $(TORCH_INDEX)' | cksum | cut -d' ' -f1)
VENV_DONE := $(STAMPS)/venv-$(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null)
TORCH_DONE := $(STAMPS)/torch-$(REQUEST)
DEPS_DONE := $(STAMPS)/dependencies
FAST_DONE := $(STAMPS)/fast
# A different FORCE_CUDA, architecture list or nvcc is a different library.
BUILD_REQUEST := $(shell printf '%s' '$(FORCE_CUDA) $(TORCH_CUDA_ARCH_LIST) $(LIBRA_MATH) $(CUDA_HOME)' \
  "$$(command -v nvcc)" | cksum | cut -d' ' -f1)
BUILD_DONE := $(STAMPS)/build-$(BUILD_REQUEST)
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu')
LINT := detectron_libra tests tools setup.py
QUICKSTART := configs/quickstart/libra_retinanet_shapes.yaml

# make bench ARGS="--op roi_align --threads 1"; make abi OTHER_PYTHON=python3.12; make gpu-check STEP=bench
ARGS ?=
OTHER_PYTHON ?=
GPU_PYTHON ?= python3
STEP ?= all

.PHONY: quickstart test test-all lint format typecheck build cuda-check abi asan bench gpu-check doctor clean help
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t14

quickstart: $(BUILD_DONE) $(FAST_DONE)  ## set up, train Libra RetinaNet on generated shapes on the CPU, evaluate, write out/quickstart
	$(BIN)/python tools/train_net.py --cfg $(QUICKSTART)

test: $(BUILD_DONE) $(FAST_DONE)  ## set up, then the tests not marked slow
	$(BIN)/python -m pytest

test-all: $(BUILD_DONE) $(FAST_DONE)  ## every test
	$(BIN)/python -m pytest -m ""

lint: $(BUILD_DONE)  ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check $(LINT)
	$(BIN)/ruff format --check $(LINT)
	$(BIN)/mypy
	find csrc -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run -Werror

format: $(DEPS_DONE)  ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix $(LINT)
	$(BIN)/ruff format $(LINT)
	find csrc -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

typecheck: $(BUILD_DONE)  ## mypy
	$(BIN)/mypy

build: $(BUILD_DONE)  ## set up and compile the operators (editable install)
	@cat build/summary.txt

cuda-check: $(TORCH_DONE)  ## compile every CUDA kernel with nvcc for sm_80 and sm_90; needs no GPU
	$(BIN)/python tools/check_cuda.py

abi: $(BUILD_DONE)  ## fail where the library needs a C++ symbol of torch; OTHER_PYTHON=... tests it under another torch
	$(BIN)/python tools/check_abi.py
ifneq ($(OTHER_PYTHON),)
	@$(OTHER_PYTHON) -c 'import sys, torch; from torch.torch_version import TorchVersion as V; \
	  print("abi: the same library under torch", torch.__version__, "and Python", sys.version.split()[0]); \
	  sys.exit(V(torch.__version__) < V("2.10") and "abi: torch 2.10 or newer is needed")'
	PYTHONPATH=$(CURDIR) $(OTHER_PYTHON) -m pytest -q -p no:cacheprovider tests/ops
endif

asan: $(BUILD_DONE)  ## the operators' tests on CPU kernels built with the address and undefined-behaviour sanitizers
	$(BIN)/python tools/check_sanitizers.py

bench: $(BUILD_DONE)  ## time the operators on the CPU; ARGS="--device cuda --op nms" and so on
	$(BIN)/python tools/benchmark_ops.py $(ARGS)

# No set-up: a machine with a GPU brings its own torch.
gpu-check:  ## on a machine with a GPU, with GPU_PYTHON: build, tests, compute-sanitizer, benchmark; STEP= one of them
	GPU_PYTHON='$(GPU_PYTHON)' tools/gpu_check.sh $(STEP)

doctor: $(BUILD_DONE)  ## versions, what runs the operators, compilers, devices
	@$(BIN)/python tools/doctor.py

clean:  ## remove what was built, not .venv and not out/
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache detectron_libra/*.so $(STAMPS)/build-*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# What the system has to bring, named with the way to get it.
$(VENV_DONE):
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON): apt-get install python3, or set PYTHON=" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.10 or newer is needed: set PYTHON=python3.12 or the like" >&2; exit 2; }
	@command -v g++ >/dev/null || { echo "make: no g++: apt-get install g++" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments: apt-get install $(notdir $(PYTHON))-venv" >&2; exit 2; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	  { echo "make: no Python.h for $(PYTHON): apt-get install $(notdir $(PYTHON))-dev" >&2; exit 2; }
	@rm -rf $(STAMPS)
	$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(TORCH_DONE): $(VENV_DONE)
	@# Another request was served before: pip would take the same version from another index for satisfied.
	@if ls $(STAMPS)/torch-* >/dev/null 2>&1; then $(BIN)/python -m pip uninstall --quiet --yes torch; fi
	$(PIP) '$(TORCH)' $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@rm -f $(STAMPS)/torch-* $(STAMPS)/build-* && touch $@

$(DEPS_DONE): requirements.txt $(TORCH_DONE)
	$(PIP) -r requirements.txt
	@touch $@

$(FAST_DONE): $(DEPS_DONE)
	@$(PIP) --retries 1 $(FAST) && touch $@ || \
	  echo "make: $(FAST) cannot be installed: pycocotools and Pillow do the work, with the same results" >&2

$(BUILD_DONE): $(DEPS_DONE) $(SOURCES)
	$(PIP) --no-build-isolation --no-deps -e .
	@rm -f $(STAMPS)/build-* && touch $@
