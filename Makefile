# Everything a developer does, by name; `make help` lists it. Needs Python 3.11 to 3.13, git and make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo check format test trackers prove bench docs record clean

PYTHON ?= python3
# TORCH=default takes what the package index offers for this machine (a GPU build, another version).
TORCH ?= torch==2.13.0
# So many tests at once; each computes with one thread.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with exact versions; done once

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Fusain needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) -V). Name another: make setup PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	grep -v '^torch==' requirements.lock > $(VENV)/exact.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/exact.txt $(if $(filter default,$(TORCH)),torch,$(TORCH))
	$(BIN)/python -m pip install --quiet --requirement $(VENV)/exact.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

demo: setup ## see it all work in a few minutes: draw, train, generate, judge
	$(BIN)/fusain demo

check: setup ## formatting, lint, types
	$(BIN)/ruff format --check src tests
	$(BIN)/ruff check src tests
	$(BIN)/mypy

format: setup ## format, and mend what can be mended by itself
	$(BIN)/ruff format src tests
	$(BIN)/ruff check --fix src tests

test: setup ## all tests but the long ones
	$(BIN)/python -m pytest -m "not prove and not gpu" --numprocesses $(JOBS) --dist loadfile

# Each in an environment of its own above this one: they want an older importlib-metadata and an older pillow.
# As a site's folder, not as a mere path: only then its own .pth counts, by which tests' processes find fusain.
trackers: setup ## run MLflow and trackio for real, which the lock has no room for
	for name in mlflow trackio; do \
		own=$(VENV)/of-$$name; \
		test -x $$own/bin/python || $(BIN)/python -m venv $$own; \
		$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
			> $$($$own/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/below.pth; \
		$$own/bin/python -m pip install --quiet "fusain[$$name]"; \
		$$own/bin/python -m pytest tests/runs/test_trackers.py tests/runs/test_network.py -k "$$name or network"; \
	done

prove: setup ## learning tests and long fault loops
	$(BIN)/python -m pytest -m prove --numprocesses $(JOBS) --dist loadfile

bench: setup ## measure speed and memory; the machine should be otherwise idle
	$(BIN)/python -m benchmarks

docs: setup ## make described.json and the reference pages from the schema
	$(BIN)/python -m fusain.cli.document

record: setup ## record the losses of every recipe anew and show what changed
	$(BIN)/python -m tests.record

clean: ## remove .venv and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
