# A newcomer needs only `make repro` and `make test`; `make help` lists the other targets.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
DEMO_READY := $(VENV)/ready-demo
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY ?= true

# The programs of an environment name its path. So one that was made in another folder, before this one was renamed or
# copied, is made again from nothing; the mark says where it was made.
MADE_IN := $(shell cat $(READY) 2>/dev/null)
ifneq ($(MADE_IN),)
ifneq ($(MADE_IN),$(CURDIR))
MOVED := --clear
.PHONY: $(READY)
endif
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo demo repro test test-long test-all lint mlflow pretrain seeds chaos readme benchmark \
	benchmark-quick any-network initialisation photographs

help:  ## print this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY)  ## make .venv from requirements.lock

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Aerofuse needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(MOVED) $(VENV)
	pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,export,package-weights]'
	python -m tools.dvc_plots_page
	@pwd -P > $@

# Gradio's latest release asks for an older Pillow and tomlkit than requirements.lock has, but works with these (tests/demo opens
# its page in a browser). So it is installed without its dependencies, and no other package changes.
setup-demo: $(DEMO_READY)

$(DEMO_READY): $(READY) requirements-demo.lock
	pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-demo.lock
	@touch $@

repro: $(READY)  ## run the pipeline (a stage without a change does not run again)
	dvc repro

test: $(READY)  ## run the tests that need no whole stage and no server
	pytest -n auto --dist loadfile --no-loadscope-reorder --durations 20 -m "not slow and not largest"

test-long: $(READY)  ## run the slow tests: whole pipelines, killed ones, servers, every command of the docs
	pytest -n auto --dist loadfile --no-loadscope-reorder --durations 20 -m "slow and not largest"

test-all: test test-long  ## run all tests; those of every variant of the backbones take 10 GB per process
	pytest -n auto --dist worksteal -m largest

lint: $(READY)  ## check style and types
	ruff check .
	ruff format --check .
	mypy

demo: $(DEMO_READY)  ## serve a page to try the model, at http://127.0.0.1:7860
	aerofuse demo

mlflow: $(READY)  ## show the runs in MLflow, at http://127.0.0.1:5000
	mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" --port 5000

pretrain: $(READY)  ## train the bundled weights again (about four hours on two cores)
	python -m tools.pretraining draw
	python -m tools.pretraining convnext_thin
	python -m tools.pretraining swin_thin  # its teacher is the ConvNeXt

seeds: $(READY)  ## measure the hybrid's gain over the multi-task baseline with five seeds
	python -m tools.studies.seeds 0 1 2 3 4

chaos: $(READY)  ## kill the pipeline 20 times and compare the results byte for byte
	python -m tools.studies.chaos

readme: $(READY)  ## write the measured numbers into the READMEs and docs
	python -m tools.readme

benchmark: $(READY)  ## measure what gradient checkpointing saves and costs, for every family
	python -m tools.benchmarks.memory
	python -m tools.benchmarks.monet_line
	python -m tools.benchmarks.page

benchmark-quick: $(READY)  ## measure it in fewer rounds, only for the families that a change concerns
	dvc repro benchmarks/dvc.yaml

any-network: $(READY)  ## try checkpointing on every kind of network (hours); in parts: make any-network ANY_NETWORK="--part 1/4"
	python -m tools.any_network $(ANY_NETWORK)
	python -m tools.any_network.page

initialisation: $(READY)  ## compare the bundled weights with random ones
	python -m tools.studies.initialisation

PHOTOS ?= ../shared/real-photos/fgvc20
photographs: $(READY)  ## measure the models on real photos: make photographs PHOTOS=FOLDER PHOTOGRAPHS="--only NAME --add"
	python -m tools.studies.photographs "$(PHOTOS)" $(PHOTOGRAPHS)
