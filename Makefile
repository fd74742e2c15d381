# Tasks of this repository. `make help` lists them.
#
# Variables, on the command line or in the environment:
#   PYTHON       the interpreter to make .venv with (default: the first of python3, python3.13,
#                python3.12, python3.11 that is 3.11 or newer)
#   PYTEST_ARGS  arguments for pytest, DEMO_ARGS for the demo, BENCH_ARGS for the benchmarks,
#                TORTURE_ARGS for the torture, SOAK_ARGS for the soak
#   MINUTES      for how long to soak

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-complete
PYTHON ?=
PYTEST_ARGS ?= -n 2
DEMO_ARGS ?=
BENCH_ARGS ?=
TORTURE_ARGS ?= --rounds 20 --runs 5000 --steps 4 --workers 6 --seconds 60 \
    --faults kill9:600,failpoint:400,sigstop:50,drain:30,evict:30,proxy:30,redis-kill:3,power-loss:2,oom:1 \
    --json benchmarks/results/torture.json
MINUTES ?= 30
SOAK_ARGS ?=

# The stamp is written last and holds the folder it was written in. Without it .venv is the rest of
# an interrupted set-up, a copy from another place, or nothing: it is made anew.
venv_is_whole = [ -x $(BIN)/python ] && [ "$$(cat $(STAMP) 2>/dev/null)" = "$$PWD" ]

# A stamp that is newer than its prerequisites but does not hold is out of date nevertheless.
ifneq ($(shell $(venv_is_whole) && echo yes),yes)
$(STAMP): FORCE
endif

# Sets $$python, or ends with one line.
define find_python
python=; \
for candidate in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
    then python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
    echo "askel needs Python 3.11 or newer, found none as: $(or $(PYTHON),python3 python3.13 python3.12 python3.11); name one with PYTHON=/path/to/python3" >&2; \
    exit 1; \
fi
endef

# Debian and its relatives ship venv and ensurepip apart from Python.
define check_venv_module
if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
    case "$$(basename "$$python")" in \
        python3.*) package="$$(basename "$$python")-venv" ;; \
        *) package=python3-venv ;; \
    esac; \
    echo "$$python cannot make virtual environments: install the package $$package, then run make again" >&2; \
    exit 1; \
fi
endef

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

.PHONY: setup
setup: $(STAMP) ## make .venv and install askel with all extras and development tools

$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if ! { $(venv_is_whole); }; then \
	    $(find_python); \
	    $(check_venv_module); \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); \
	fi; \
	rm -f $(STAMP); \
	echo "installing askel and its tools into $(VENV)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[all,dev]'; \
	pwd > $(STAMP)

.PHONY: FORCE
FORCE:

.PHONY: demo
demo: $(STAMP) ## two workers, 300 runs, one SIGKILL half-way; ends with a table
	$(BIN)/askel demo $(DEMO_ARGS)

.PHONY: test
test: $(STAMP) ## all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: $(STAMP) ## the tests that are not marked slow
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m 'not slow'

.PHONY: torture-state
torture-state: $(STAMP) ## the state service beside its model, twenty times as long, other dice
	ASKEL_TORTURE_STATE=20 $(BIN)/python -m pytest $(PYTEST_ARGS) --timeout 3600 tests/properties

.PHONY: model
model: $(STAMP) ## the protocol model in its large configurations, minutes
	ASKEL_MODEL=1 $(BIN)/python -m pytest $(PYTEST_ARGS) --timeout 7200 -s tests/model

.PHONY: fuzz
fuzz: $(STAMP) ## a million mutated inputs at the decoders, 100,000 at a live worker
	ASKEL_FUZZ=1 $(BIN)/python -m pytest -s --timeout 3600 tests/security/test_fuzz.py

.PHONY: torture
torture: $(STAMP) ## 20 rounds of a minute or more: 20,000 deaths of workers in 100,000 runs
	mkdir -p benchmarks/results
	@status=0; \
	$(BIN)/askel torture $(TORTURE_ARGS) >benchmarks/results/torture.txt || status=$$?; \
	cat benchmarks/results/torture.txt; exit $$status

.PHONY: soak
soak: $(STAMP) ## 30 minutes (MINUTES=) of load and faults, and whether anything grows
	mkdir -p benchmarks/results
	@status=0; \
	$(BIN)/askel soak --minutes $(MINUTES) --json benchmarks/results/soak.json $(SOAK_ARGS) \
	    >benchmarks/results/soak.txt || status=$$?; \
	cat benchmarks/results/soak.txt; exit $$status

.PHONY: check
check: lint types audit ## lint, types, and the audit of dependencies

.PHONY: lint
lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

.PHONY: audit
audit: $(STAMP) ## known vulnerabilities of the pinned dependencies; skipped where nobody can be asked
	$(BIN)/python tests/security/audit.py

.PHONY: format
format: $(STAMP) ## rewrite the files as lint wants them, where ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: api
api: $(STAMP) ## write docs/api.md, the API reference, from the docstrings
	$(BIN)/python docs/api_reference.py

.PHONY: bench
bench: $(STAMP) ## the benchmarks
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

.PHONY: clean
clean: ## remove .venv, caches, build output and the state of `askel dev`
	rm -rf $(VENV) .askel build dist htmlcov .coverage .coverage.* \
	    .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . \( -name .git -o -name node_modules \) -prune -o \
	    -type d \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
