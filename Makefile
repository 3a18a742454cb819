# make demo: the whole pipeline on an embedded data set.   make test, test-long: all tests.   make lint, bench, versions
# Each sets up what it needs in .venv first: Python 3.11 or 3.12 with its venv module, git and the network are enough.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
READY := .venv/installed
# git-annex, datalad and snakemake are found by the programs that call them, in .venv and nowhere else first.
export PATH := $(BIN):$(PATH)

.PHONY: help demo test test-long lint bench versions
help:
	@echo "make demo   the whole pipeline on an embedded data set; prints where report, volumes and MLflow database are"
	@echo "make test   every promise, two tests at once; ARGS='-k volumes' for some, ARGS='-n 0 --pdb' for one at a time"
	@echo "make test-long  what nobody waits for: the whole pipeline through SLURM, series of kills, quality on real heads"
	@echo "make lint   style of Python and Snakefiles"
	@echo "make bench  benchmarks: ratios measured in one run"
	@echo "make versions  record the code of stages and parts once it is decided whether results differ; ARGS=loss.l1 for some"

demo: $(READY)
	headsr demo

# A thread for each of two test processes: with one for every core in both, they wait for each other most of the time.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n 2 --no-loadscope-reorder

test: $(READY)
	$(PYTEST) -m "not long" $(ARGS)

test-long: $(READY)
	$(PYTEST) -m long $(ARGS)

lint: $(READY)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint

bench: $(READY)
	for benchmark in benchmarks/*.py; do echo "== $$benchmark"; python "$$benchmark"; done

versions: $(READY)
	python tests/unit/stage_digests.py --record $(ARGS)
	python tests/unit/recipes/defaults.py
	python -m headsr.recipes.reference

# Made again when what is asked for or pinned changes; an installation that was interrupted leaves no mark and goes on.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else \
	    "headsr needs Python 3.11 or 3.12 and $(PYTHON) is %d.%d: say make PYTHON=python3.12" % v)'
	@echo "Installing into .venv: some minutes the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@
