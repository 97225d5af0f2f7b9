# `make demo` and `make test` need nothing but Python 3.11 or later, a C++20 compiler and the network;
# both set up .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
BUILT_FROM := pyproject.toml setup.py constraints.txt $(shell find csrc -type f)
PYTHON_FILES := $(wildcard pyseq kernels benchmarks tests examples *.py)

.PHONY: demo test lint format bench sanitize sanitize-threads clean

demo: $(VENV)/.installed
	$(BIN)/pyseq demo

test: $(VENV)/.installed-for-development
	PYSEQ_REQUIRE_CORE=1 $(BIN)/python -m pytest -n logical --dist worksteal --durations 25

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

# Tests with the C++ built for sanitizers, in a copy of the package: the native ops under
# AddressSanitizer and UndefinedBehaviorSanitizer, the loader under ThreadSanitizer. libstdc++ is
# loaded first too, because sanitizers must find what throws exceptions when they start.
SANITIZED = build/$@
define sanitize
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	cp -rL pyseq tests benchmarks pyproject.toml $(SANITIZED) && rm -f $(SANITIZED)/pyseq/_core*.so
	$(BIN)/cmake -G Ninja -S csrc -B $(SANITIZED)/objects -DCMAKE_BUILD_TYPE=Release \
		-DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
		-DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DPYSEQ_SANITIZE=$(1) $(2) \
		-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$(CURDIR)/$(SANITIZED)/pyseq
	$(BIN)/cmake --build $(SANITIZED)/objects
endef
PRELOADED = "$$(g++ -print-file-name=$(1)) $$(g++ -print-file-name=libstdc++.so)"

# Python never frees some of its memory, which is no leak of ours.
sanitize: $(VENV)/.installed-for-development
	$(call sanitize,address$(comma)undefined,)
	cd $(SANITIZED) && LD_PRELOAD=$(call PRELOADED,libasan.so) \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=. \
		$(CURDIR)/$(BIN)/python -m pytest -q -n logical --dist worksteal --capture=sys \
		tests/ops tests/data/test_prefetch.py tests/analysis/randomness/test_symbol_pass.py \
		tests/analysis/randomness/test_laws.py tests/analysis/predictability/test_mixture.py \
		-k "(native or instruction_sets or prefetch or analysis) and not keeps_no_others"

# Without tests of OpenMP's threads, whose waiting for each other ThreadSanitizer cannot see, of forks,
# after which it knows no new threads, of how much memory is used, and of who handles signals, which
# it does. setarch: where addresses are random, it may not find room for its own memory.
sanitize-threads: $(VENV)/.installed-for-development
	$(call sanitize,thread,-DPYSEQ_PORTABLE_ONLY=ON)
	cd $(SANITIZED) && LD_PRELOAD=$(call PRELOADED,libtsan.so) \
		TSAN_OPTIONS=halt_on_error=1 PYTHONPATH=. \
		setarch -R $(CURDIR)/$(BIN)/python -m pytest -q --capture=sys \
		tests/data/test_prefetch.py tests/data/test_window_loader.py tests/data/test_u16_stream.py \
		-k "not worker and not fork and not keeps_no_others and not handler_of_bus_errors"
comma := ,

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
