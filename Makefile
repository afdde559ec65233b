# The two commands: `make report` and `make test`. Each sets up what it needs, and does nothing twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLUSTER := slurm,generic,kubernetes,test-cluster

.PHONY: report test test-library test-workflow test-cluster environment check compare docs bench lock audit clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

report: $(VENV)/.ready  ## run the default study and write results/report.html
	$(BIN)/snakemake --cores 1 --resources gpu=1

test: $(VENV)/.ready-dev  ## check style and types, and run the tests
	$(MAKE) --no-print-directory check
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-library test-workflow
	$(BIN)/python -m pytest -m alone

test-library:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not alone" tests/unit tests/browser

test-workflow:
	$(BIN)/python -m pytest tests/gpu tests/workflow

test-cluster: $(VENV)/.ready-dev  ## run studies by a Slurm of one's own, where slurm-wlm and munge are installed, and on an S3 server
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(CLUSTER)]'
	$(BIN)/python -m pytest tests/cluster

environment: $(VENV)/.ready  ## set up the virtual environment only

check: $(VENV)/.ready-dev  ## style, types and the workflow's own linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

compare: $(VENV)/.ready  ## say what changed between two folders of results: make compare A=results-a B=results-b
	@test -n "$(A)" && test -n "$(B)" || { echo "Name two folders of results: make compare A=results-a B=results-b"; exit 1; }
	$(BIN)/python -m inferometer.compare "$(A)" "$(B)"

docs: $(VENV)/.ready-dev  ## build the documentation as a site in docs/_build
	$(BIN)/sphinx-build -W -q docs docs/_build
	@echo "docs/_build/index.html"

bench: $(VENV)/.ready-dev  ## measure speed and memory as ratios, and where the time goes
	$(BIN)/python -u -m benchmarks.bench

lock: $(VENV)/.ready-dev  ## write constraints.txt anew from what is installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,$(CLUSTER)]'
	$(BIN)/python -m pip freeze --exclude-editable --exclude inferometer | sed 's/+cpu$$//' | sort -f > constraints.txt

audit: $(VENV)/audit/bin/pip-audit  ## ask PyPI's advisories about every pin; no answer is no all-clear
	@$< --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off 2>$(VENV)/audit/log; status=$$?; \
	tail -n 1 $(VENV)/audit/log; \
	test $$status -eq 0 || echo "No all-clear: a pin has a known vulnerability, or not all pins could be asked about."; \
	exit $$status

$(VENV)/audit/bin/pip-audit: | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit==2.10.1

clean:  ## remove the environment and all results
	rm -rf $(VENV) results .snakemake docs/_build

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Inferometer needs Python 3.11 or newer; set PYTHON=path/to/python3."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.ready
