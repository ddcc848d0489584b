# Blotter: what to do with it. Each target that needs the virtual environment makes it first, and quickly when it is there.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PY := .venv/bin/python
PYTEST_ARGS ?=
ARGS ?=

JOBS ?= 3
MINUTES ?= 10
SEED ?= 1

.PHONY: help setup run test nightly soak bench bench-full bench-env scaling lint format lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Make .venv: Python, the locked dependencies, Blotter itself
	@for python in $${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do \
		if "$$python" -c '' 2>/dev/null; then exec "$$python" deploy/setup.py; fi; \
	done; \
	echo "setup: no Python found: install Python 3.11 to 3.14" >&2; exit 1

# Tied to make by its lifeline: should make be killed, `blotter up` gets SIGTERM and stops in order.
run: setup  ## Run everything on this machine: servers, web, worker, beat (ARGS="--port 8400 --data DIR")
	@exec $(PY) -I -S web/cli/lifeline.py 15 $$PPID -1 -1 . .venv/bin/blotter up $(ARGS)

# Three files at once on two processors, for a test mostly waits: 9 minutes in place of 18. Whole files, for what a file starts is
# shared by its tests; in the order of the folders, which has the long ones first. JOBS=0: one after the other, in one process.
test: setup  ## Run the test suite (PYTEST_ARGS="-k word"; JOBS=3 files at once, JOBS=0 one after the other)
	@$(PY) -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

nightly: setup  ## Run the long tests too: every fail point, every arrival order, long simulations (hours at most)
	@BLOTTER_TEST_TIER=full $(PY) -m pytest -m "" --timeout 3600 $(PYTEST_ARGS)

# A rival's losses beside ours: ARGS="--rivals". All faults by name: ARGS=--list. One alone: ARGS='--only "kill -9 beat"'.
soak: setup  ## Kill and cut everything while clients save: a table, exit code 1 on any loss (MINUTES=10 SEED=1 ARGS=...)
	@$(PY) -m tests.soak --minutes $(MINUTES) --seed $(SEED) $(ARGS)

bench: setup  ## Measure: rows 1-14, a table and a JSON document (ARGS="--only 1,4 --quick --json FILE --out DIR")
	@$(PY) -m tests.bench $(ARGS)

bench-full: setup bench-env  ## Measure the big ones too, and the rivals, in an environment of their own (build/bench)
	@$(PY) -m tests.bench --full $(ARGS)

# Rivals and matplotlib: neither locked nor needed by anything else. Without PyPI the row that needs them is skipped.
bench-env:
	@test -e build/bench/venv/.complete || { \
		mkdir -p build/bench && $(PY) -m venv --clear build/bench/venv && \
		build/bench/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/bench/rivals.txt && \
		touch build/bench/venv/.complete; \
	} || { rm -rf build/bench/venv; echo "bench-env: cannot install tests/bench/rivals.txt: row 15 is skipped" >&2; }

scaling: setup bench-env  ## Compute deploy/SCALING.md and its plots anew (ARGS="--from FILE", a document of make bench)
	@$(PY) -m deploy.scaling $(ARGS)

lint: setup  ## Check style and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup  ## Put the code in its format
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

lock: setup  ## Write requirements.lock anew from pyproject.toml (LOCK_ARGS="--upgrade")
	@$(PY) deploy/setup.py --lock $(LOCK_ARGS)
	@$(MAKE) --no-print-directory setup

clean:  ## Remove what was built here; data folders stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
