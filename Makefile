# `make demo`, `make test` and `make check` set everything up themselves: a virtual environment, torch, fastvoc with its
# libraries, and for the tests what they need beside.
# PYTHON is the interpreter to start from; a torch of 2.11 or later that it has is used, otherwise TORCH is installed.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
# What `make gpu-kit` makes is for a machine with this Python, torch, Triton and GPU; KIT_VENV may be an environment of
# its kind that is there already.
KIT_PYTHON ?= python3.12
KIT_TORCH ?= torch==2.11.0 triton==3.6.0
KIT_VENV ?= build/gpu/venv
KIT_ARCHS ?= 9.0a
KIT_TARGET ?= 90
KIT_MODELS ?= v1 v2 v3 cosyvoice2 vocos encodec-24k-decode univnet
# Kernels built in place are for the visible GPU, without one for the oldest target, whose PTX every later one takes.
CUDA_ARCHS ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1),8.0+PTX)

IN_VENV := $(VENV)/bin/python -m
STAMP := $(VENV)/installed
FOR_HERE = TORCH_CUDA_ARCH_LIST="$(CUDA_ARCHS)"
TEST_STAMP := $(VENV)/installed-tests
HAS_TORCH := -c "import torch; assert tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 11)"
export PYTHONSAFEPATH := 1
# A worker a core, eight at most, where pytest-xdist is installed; ARGS follow and have the last word.
WORKERS = $$($(VENV)/bin/python -c "import os, xdist; print('--dist=worksteal -n', min(len(os.sched_getaffinity(0)), 8))" 2>/dev/null)
TESTED = $(IN_VENV) pytest $(WORKERS)
# One thread in each: those of two workers would wait for each other. Tests of threads set their own number.
test check: export OMP_NUM_THREADS ?= 1
# Many tests start Python anew: what they import is compiled once.
test check: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check lint soak bench gpu-kit gpu-kernels wheel wheels setup clean

demo: setup
	mkdir -p demo
	$(VENV)/bin/fastvoc vocode fastvoc/assets/demo.flac demo/out.wav --model vocos-22k --plot demo/out.png
	@echo "demo/out.wav: the mel of fastvoc/assets/demo.flac, spoken again by vocos-22k, the better of the two embedded voices"

# The first tier of the tests, and the rest of them; together they are what a change must pass.
test check: $(TEST_STAMP)
	$(TESTED) --tier=$@ $(ARGS)

lint: $(TEST_STAMP)
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy

soak: $(TEST_STAMP)
	$(IN_VENV) pytest -m "not network" $(ARGS)

bench: $(TEST_STAMP)
	PYTHONSAFEPATH= $(VENV)/bin/python benchmarks/ops.py
	PYTHONSAFEPATH= $(VENV)/bin/python benchmarks/models.py

# What `benchmarks/gpu.sh first` finds where build/gpu/lib and build/gpu/triton were carried: the library for CUDA and
# Triton's kernels, compiled. It needs nvcc and no GPU.
gpu-kit: gpu-kernels
	FASTVOC_BUILD=cuda TORCH_CUDA_ARCH_LIST="$(KIT_ARCHS)" $(KIT_VENV)/bin/python -W ignore setup.py -q build \
	  --build-lib build/gpu/lib --build-temp build/gpu/temp
	du -sh build/gpu/lib build/gpu/triton

# One set of kernels serves all lengths and batches.
gpu-kernels:
	test -x $(KIT_VENV)/bin/python || { $(KIT_PYTHON) -m venv $(KIT_VENV) && \
	  $(KIT_VENV)/bin/pip install $(KIT_TORCH) "setuptools>=77" wheel pybind11 numpy pyyaml; }
	PYTHONSAFEPATH= PYTHONPATH="$(CURDIR)" TRITON_CACHE_DIR="$(CURDIR)/build/gpu/triton" \
	  $(KIT_VENV)/bin/python benchmarks/warm.py --target $(KIT_TARGET) --models $(KIT_MODELS) --shapes 1x0.2 2x0.3 \
	  --dtype bf16 fp32

wheel: setup
	rm -rf build
	$(IN_VENV) pip wheel . --no-build-isolation --no-deps -w dist

# Wheels with a label: +cpu, and +cu132, +cu130, +cu128 or +cu126 for the toolkit at CUDA_HOME, or of the nvcc on the PATH.
wheels: setup
	rm -rf build/lib*
	FASTVOC_LABEL=1 FASTVOC_BUILD=cpu $(IN_VENV) pip wheel . --no-build-isolation --no-deps -w dist
	@if [ -x "$(CUDA_HOME)/bin/nvcc" ] || command -v nvcc >/dev/null; then set -x; \
	  FASTVOC_LABEL=1 FASTVOC_BUILD=cuda $(IN_VENV) pip wheel . --no-build-isolation --no-deps -w dist; \
	else echo "no nvcc: the CUDA wheel is left out (set CUDA_HOME)"; fi

setup: $(STAMP)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) $$($(PYTHON) $(HAS_TORCH) 2>/dev/null && echo --system-site-packages)

# The libraries are compiled first, where it shows; pip finds them done.
$(STAMP): pyproject.toml setup.py $(shell find csrc -type f -not -name '*.pyc') | $(VENV)/bin/python
	$(VENV)/bin/python $(HAS_TORCH) 2>/dev/null || $(IN_VENV) pip install "$(TORCH)"
	$(IN_VENV) pip install "setuptools>=77" wheel pybind11 numpy
	$(FOR_HERE) $(VENV)/bin/python -u -W ignore setup.py -q build_native --inplace
	$(FOR_HERE) $(IN_VENV) pip install --no-build-isolation -e ".[plot]"
	touch $@

$(TEST_STAMP): $(STAMP)
	$(FOR_HERE) $(IN_VENV) pip install --no-build-isolation -e ".[test]"
	$(IN_VENV) pip install pesq || echo "pesq needs a C compiler: PESQ is left out"
	touch $@

clean:
	rm -rf build dist demo *.egg-info fastvoc/_C_*.so fastvoc/_build_info.json $(VENV)
