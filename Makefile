# make demo and make test do all the set-up themselves: a virtual environment in .venv, packages at the pinned versions.
VENV ?= .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.installed
FOUND := $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PYTHON ?= $(FOUND)

.PHONY: demo test check format clean
.DEFAULT_GOAL := demo

demo: $(READY) ## the whole job on digits: experts, three divergences, baselines, MCMC, tables, pictures
	$(PY) run.py demo

test: $(READY) ## every test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

check: $(READY) ## format, lint, types, fast tests
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile -m "not slow"

format: $(READY) ## put the code into shape
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[pyro,dev]"
	@touch $@

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) demo *.egg-info
