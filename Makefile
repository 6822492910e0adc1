# `make repro` and `make test` are all a newcomer needs; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY ?= true

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-all lint mlflow pretrain seeds readme benchmark benchmark-quick initialisation

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY)  ## make .venv from requirements.lock

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Aerofuse needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	python -m aerofuse.reporting.dvc_plots_page
	@touch $@

repro: $(READY)  ## run the whole pipeline (what has not changed is not run again)
	dvc repro

test: $(READY)  ## run the tests
	pytest -n auto --dist loadfile --no-loadscope-reorder -m "not large"

test-all: test  ## run the long ones, too: all variants of the backbones, all plans, more pipeline runs
	pytest -n auto --dist worksteal -m large --ignore-glob '*/test_pipeline*.py'
	pytest -m large tests/test_pipeline.py tests/test_pipeline_photos.py

lint: $(READY)  ## check style and types
	ruff check .
	ruff format --check .
	mypy

mlflow: $(READY)  ## the tracking page over the runs just made, at http://127.0.0.1:5000
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port 5000

pretrain: $(READY)  ## make the bundled weights again (about two hours on two cores)
	python -m aerofuse.pretraining draw --photos easy full
	python -m aerofuse.pretraining convnext_thin & convnext=$$!; python -m aerofuse.pretraining swin_thin && wait $$convnext

seeds: $(READY)  ## the hybrid's gain over the multi-task baseline, for three seeds
	python -m aerofuse.studies.seeds 0 1 2

readme: $(READY)  ## put the pipeline's numbers into README.md
	python -m aerofuse.reporting.readme

benchmark: $(READY)  ## what gradient checkpointing saves and costs, for every family, at full length
	python -m aerofuse.benchmarks.memory
	python -m aerofuse.benchmarks.monet_line
	python -m aerofuse.reporting.benchmark_page

benchmark-quick: $(READY)  ## the same as a pipeline, in fewer rounds: only the families that a change concerns
	dvc repro benchmarks/dvc.yaml

initialisation: $(READY)  ## what the bundled weights bring against random ones
	python -m aerofuse.studies.initialisation
