# `make demo` and `make test` need nothing but Python 3.11 or later, a C++20 compiler and the network;
# both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
BUILT_FROM := pyproject.toml setup.py constraints.txt $(shell find csrc -type f)
PYTHON_FILES := $(wildcard pyseq kernels benchmarks tests examples *.py)

.PHONY: demo test lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/pyseq demo

test: $(VENV)/.installed-for-development
	PYSEQ_REQUIRE_CORE=1 $(BIN)/python -m pytest

lint: $(VENV)/.installed-for-development
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	find csrc -name '*.[ch]pp' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy pyseq

format: $(VENV)/.installed-for-development
	$(BIN)/ruff check --fix-only $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	find csrc -name '*.[ch]pp' | xargs $(BIN)/clang-format -i

bench: $(VENV)/.installed-for-development
	PYSEQ_REQUIRE_CORE=1 $(BIN)/python -m pytest benchmarks

clean:
	rm -rf $(VENV) build *.egg-info pyseq/_core*.so pyseq/_core_build_error.txt demo

$(VENV)/.installed: $(BUILT_FROM)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-for-development: $(BUILT_FROM)
	$(PYTHON) -m venv $(VENV)
	PYSEQ_REQUIRE_CORE=1 $(PIP) -e '.[dev]'
	touch $(VENV)/.installed $@
