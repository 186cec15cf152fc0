# Everything runs in .venv, which is made on first use. `make demo` and `make test` are all that a newcomer needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: setup demo test test-fast check bench format clean test-faults

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))" || { echo "qle needs Python 3.11 or newer with venv (Debian: apt-get install python3 python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/qle demo demo

# Two processes, as for two cores; a file's tests stay together, since they share what is expensive.
TEST_PROCESSES ?= 2

test: setup
	$(BIN)/python -m pytest -m "not faults" -n $(TEST_PROCESSES) --dist loadfile

# Long tables of what may go wrong: kills before every file operation, disks that are full or fail, flipped bits, damaged films and
# files. Seeded and bounded; docs/reliability.md says what each of them is for.
test-faults: setup
	$(BIN)/python -m pytest -m faults -n $(TEST_PROCESSES) --dist loadfile

# For everyday work: every part by itself, without the command line on real videos and without what takes long or starts
# processes; properties are tried on a quarter of their examples.
test-fast: setup
	$(BIN)/python -m pytest tests/unit -m "not slow and not faults" --hypothesis-profile fast -n $(TEST_PROCESSES) --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/help_time.py --limit 0.3

bench: setup
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

format: setup
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
