# Needs make and Python 3.11 or newer; everything else is installed into .venv.
# Another interpreter: make test PYTHON=python3.12

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

VENV  := .venv
BIN   := $(VENV)/bin
RUN   := $(BIN)/python
STAMP := $(VENV)/installed
PEERS := $(VENV)/peers

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench verify-long figures claims lint format clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## create .venv with the tested versions (a minute or two)

# Runs when .venv is missing, older than what it is made from, moved here from another folder, or left by an
# interpreter that is gone. A .venv whose pip still runs is brought up to date, any other is made anew.
ifneq ($(shell $(RUN) -c 'print(open("$(STAMP)").read().strip())' 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "icm needs Python 3.11 or newer, and $(PYTHON) is `$(PYTHON) --version 2>&1 || true`."; \
	  echo "Name another interpreter: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing icm and its tools into $(VENV) (a minute or two)"
	@$(RUN) -m pip install -qq -e '.[dev]' -c constraints.txt
	@echo '$(CURDIR)' > $@

demo: $(STAMP)  ## run the demonstration
	@$(BIN)/icm demo $(ARGS)

test: $(STAMP)  ## lint, types and the tests that take seconds
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)
	$(RUN) -m pytest -n $(WORKERS) $(ARGS)

# The peers are optional: without them, or without a network, their rows are left out.
$(PEERS): $(STAMP)
	@echo "Installing the packages that icm is timed against"
	@$(RUN) -m pip install -qq -e '.[bench]' -c constraints.txt && touch $@ || \
	  echo "They cannot be had here: their rows are left out."

bench: $(STAMP) $(PEERS)  ## timings and studies against peers
	$(RUN) -m benchmarks $(ARGS)

verify-long: $(STAMP)  ## the tests that take minutes
	$(RUN) -m pytest -n $(WORKERS) -m long $(ARGS)

figures: $(STAMP)  ## draw the pictures of the guide
	$(RUN) docs/figures.py

claims: $(STAMP)  ## write the evidence of every claim into docs/claims.md (minutes)
	$(RUN) docs/claims_list.py

lint: $(STAMP)  ## ruff and pyright only
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

format: $(STAMP)  ## rewrite the sources in the house format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:  ## remove .venv, caches and demo output
	rm -rf $(VENV) build dist icm-demo icm-witnesses .pytest_cache .ruff_cache .hypothesis benchmarks/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
