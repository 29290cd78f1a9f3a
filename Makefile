# `make demo` and `make test` set everything up themselves: a virtual environment in .venv, torch, fastvoc with its
# native libraries. PYTHON chooses the interpreter that makes the environment, TORCH the release of torch.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv

BIN := $(VENV)/bin
STAMP := $(VENV)/installed
NATIVE := $(shell find csrc -type f 2>/dev/null)
export PYTHONSAFEPATH := 1

.PHONY: demo test lint bench soak wheel setup clean

demo: setup
	mkdir -p demo
	$(BIN)/fastvoc vocode fastvoc/assets/demo.flac demo/out.wav --plot demo/out.png

test: setup
	$(BIN)/pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: setup
	$(BIN)/pytest -m "not network" $(ARGS)

bench: setup
	$(BIN)/python benchmarks/ops.py
	$(BIN)/python benchmarks/models.py

wheel: setup
	rm -rf build
	$(BIN)/pip wheel . --no-build-isolation --no-deps -w dist

setup: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml setup.py $(NATIVE) | $(BIN)/python
	$(BIN)/python -c "import torch; assert torch.__version__ >= '2.11'" 2>/dev/null || $(BIN)/pip install "$(TORCH)"
	$(BIN)/pip install "setuptools>=77" wheel
	$(BIN)/pip install --no-build-isolation -e ".[test]"
	@$(BIN)/python -c "import json; [print('fastvoc:', name, 'library', facts.get('left_out', 'built')) \
	  for name, facts in json.load(open('fastvoc/_build_info.json'))['libraries'].items()]"
	touch $@

clean:
	rm -rf build dist demo *.egg-info fastvoc/_C_*.so fastvoc/_build_info.json $(VENV)
