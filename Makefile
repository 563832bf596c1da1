# What a person does with this repository. Each target sets up what it needs in .venv, from the
# exact versions in requirements/, and does so again only when those change.
# Needs: make, Python >= 3.11 with pip and venv, and a package index.

FIND_PYTHON := for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done
PYTHON  ?= $(shell $(FIND_PYTHON))
PYTHONS ?= python3.11 python3.12 python3.13
VENV    ?= .venv
BIN     := $(VENV)/bin
STATE   := $(shell cat pyproject.toml requirements/*.txt | cksum | cut -d ' ' -f 1)
TESTS   ?=
# Names of canaries, laws or security rows; all if empty.
CANARIES ?=
# Modules to mutate, such as sojourn._core.plan; all if empty.
MODULES ?=
FAST    := -m "not slow"
# These alone must cover every branch of _core, _crypto and record.
CORE_TESTS := tests/unit/core tests/unit/crypto tests/unit/test_record.py
# Classes and files side by side; a class stays together, with the servers that it starts. More
# processes than cores, because the tests of servers wait most of the time.
SPREAD  := -n 3 --dist loadscope
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Each process of the tests would compile all modules again: a quarter of their time.
export PYTHONDONTWRITEBYTECODE :=
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo test test-all test-peers test-peers-once test-ui canaries mutation security-table check format bench bench-frameworks bench-postgresql bench-telemetry docs lock clean

help:
	@echo "make demo      start the demo and print its address"
	@echo "make test      run the fast tests; core must have full branch coverage"
	@echo "make test-all  run all tests, slow ones too, on each of: $(PYTHONS)"
	@echo "make test-peers  run the frameworks' own session tests with sojourn, on each of: $(PEER_PYTHONS)"
	@echo "make test-peers-once  the same on one Python"
	@echo "make test-ui   run the tests of FastHTML, NiceGUI, Streamlit and Gradio"
	@echo "make canaries  plant one fault after the other; each must make a test of its law fail"
	@echo "make mutation  mutate the decision code at random, report the survivors (hours)"
	@echo "make security-table  write docs/security.md from its rows and the tests"
	@echo "make check     lint, formatting, types, documentation"
	@echo "make format    put the code into the one format"
	@echo "make bench     measure, write benchmarks/RESULTS.md"
	@echo "make bench-frameworks   the same for every framework and its session library"
	@echo "make bench-postgresql   sessions in PostgreSQL beside Django's and Flask-Session's"
	@echo "make bench-telemetry    what metrics and spans cost"
	@echo "make docs      build the documentation into site/"
	@echo "make lock      renew requirements/ from pyproject.toml"
	@echo "make clean     remove everything that was built"

# One stamp for each group and state of the requirements: .venv/.test-<checksum>.
$(VENV)/.%-$(STATE):
	@test -n "$(PYTHON)" || { echo "sojourn needs Python 3.11 or newer; none was found" >&2; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "setting up $(VENV) for '$*'"
	@rm -f $(VENV)/.$*-*
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/$*.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.demo-$(STATE)
	@$(BIN)/python -m examples.demo

test: $(VENV)/.test-$(STATE)
	$(BIN)/coverage run -m pytest $(CORE_TESTS) $(FAST)
	$(BIN)/coverage report
	$(BIN)/python -m pytest $(CORE_TESTS:%=--ignore=%) $(FAST) $(SPREAD) $(TESTS)

# Large packages, which only these tests need.
UI := .venv-ui
test-ui:
	@$(MAKE) --no-print-directory VENV=$(UI) $(UI)/.ui-$(STATE)
	$(UI)/bin/python -m pytest tests/ui $(TESTS)

test-all:
	@PYTHONS="$(PYTHONS)" MAKE="$(MAKE)" tools/test_all.sh

# Django 5.2 is the last version for Python 3.11, and Django 6 needs 3.12.
PEER_PYTHONS ?= python3.11 python3.12
# Parts of names of suites; all if empty.
SUITES ?=
test-peers:
	@PYTHONS="$(PEER_PYTHONS)" MAKE="$(MAKE)" TARGET=test-peers-once tools/test_all.sh

test-peers-once: $(VENV)/.test-$(STATE)
	$(BIN)/python -m tools.peers $(SUITES)

check: $(VENV)/.check-$(STATE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	@# what is installed is asked, as an editor would: pyright looks for it through PATH
	PATH="$(abspath $(BIN)):$$PATH" pyright --ignoreexternal --verifytypes sojourn
	$(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.check-$(STATE)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The peers measured beside sojourn are pinned for themselves and stay out of .venv.
PEERS := .venv-bench
bench: $(PEERS)/.bench-$(shell cat benchmarks/requirements.txt | cksum | cut -d ' ' -f 1)
	PYTHONPATH=src $(PEERS)/bin/python -m benchmarks

bench-telemetry: $(PEERS)/.bench-$(shell cat benchmarks/requirements.txt | cksum | cut -d ' ' -f 1)
	PYTHONPATH=src $(PEERS)/bin/python -m benchmarks.telemetry

# Every framework with its own or usual session library, in an environment of its own.
BENCH_FRAMEWORKS := .venv-bench-frameworks
bench-frameworks: $(BENCH_FRAMEWORKS)/.bench-$(shell cat benchmarks/requirements-frameworks.txt | cksum | cut -d ' ' -f 1)
	PYTHONPATH=src $(BENCH_FRAMEWORKS)/bin/python -m benchmarks.frameworks

# PostgreSQL, beside the session libraries that keep sessions there.
BENCH_POSTGRESQL := .venv-bench-postgresql
bench-postgresql: $(BENCH_POSTGRESQL)/.bench-$(shell cat benchmarks/requirements-postgresql.txt | cksum | cut -d ' ' -f 1)
	PYTHONPATH=src $(BENCH_POSTGRESQL)/bin/python -m benchmarks.postgresql

$(BENCH_POSTGRESQL)/.bench-%:
	@$(PYTHON) -m venv --clear $(BENCH_POSTGRESQL)
	@$(BENCH_POSTGRESQL)/bin/python -m pip install --quiet -r benchmarks/requirements-postgresql.txt
	@touch $@

$(BENCH_FRAMEWORKS)/.bench-%:
	@$(PYTHON) -m venv --clear $(BENCH_FRAMEWORKS)
	@$(BENCH_FRAMEWORKS)/bin/python -m pip install --quiet -r benchmarks/requirements-frameworks.txt
	@touch $@

$(PEERS)/.bench-%:
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet -r benchmarks/requirements.txt
	@touch $@

canaries: $(VENV)/.test-$(STATE)
	$(BIN)/python -m tools.canaries $(CANARIES)

mutation: $(VENV)/.mutation-$(STATE)
	$(BIN)/python -m tools.mutation $(MODULES)

security-table: $(VENV)/.test-$(STATE)
	$(BIN)/python -m tools.security_table

docs: $(VENV)/.check-$(STATE)
	$(BIN)/mkdocs build --strict

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(LOCKFLAGS)
lock: $(VENV)/.check-$(STATE)
	$(LOCK) pyproject.toml --all-extras --group check -o requirements/check.txt
	$(LOCK) pyproject.toml --all-extras --group test -c requirements/check.txt -o requirements/test.txt
	$(LOCK) pyproject.toml --all-extras --group mutation -c requirements/check.txt -o requirements/mutation.txt
	$(LOCK) pyproject.toml --all-extras --group ui -o requirements/ui.txt
	$(LOCK) pyproject.toml --group demo -c requirements/check.txt -o requirements/demo.txt

clean:
	rm -rf .venv .venv-* mutants site build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests examples benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +
