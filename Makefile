# `make` alone says what there is. Everything it makes is under .venv and .local, and in tool caches.

PYTHON ?= python3.11
ARGS ?=

SHELL := /bin/sh
S3 := .local/s3
BIN := .venv/bin
STORE := s3://polyfit/runs

# The environment counts if it was made here (its scripts name their folder), if it works, and if no
# installation into it was broken off.
SOUND := $(shell [ "$$(cat .venv/made 2>/dev/null)" = "$$(pwd -P)" ] && [ ! -e .venv/installing ] \
	&& $(BIN)/python -c 'import pip' 2>/dev/null && echo yes)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run picture test simulate chaos lint serve-s3 stop-s3 bench gpu-check image-check clean
.DEFAULT_GOAL := help

help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: serve-s3 ## Run jobs/sweep.yaml on Ray and a local S3 server; installs what it needs
	@. $(S3)/env && env -u RAY_ADDRESS $(BIN)/polyfit run jobs/sweep.yaml --executor ray --store $(STORE) $(ARGS)
	@echo
	@echo 'The run is in a local S3 server, which stays up. To look at it, with the address above:'
	@echo '  . $(S3)/env && $(BIN)/polyfit results $(STORE)/sweep/<id> --sort -max_error'
	@echo '  . $(S3)/env && $(BIN)/polyfit verify $(STORE)/sweep/<id>'
	@echo 'To stop the server: make stop-s3'

picture: .venv/picture run ## Draw README's picture, jobs/sweep-*.svg, from the run of `make run`
	@. $(S3)/env && $(BIN)/python jobs/picture.py $(STORE)

test: .venv/test ## All tests; ARGS="-k spec -x" goes to pytest
	$(BIN)/python -m pytest $(ARGS)

simulate: .venv/test ## 100,000 simulated histories of faults; ARGS="--seed 7" tells one of them
	$(BIN)/python tests/simulate.py $(ARGS)

chaos: .venv/test ## 50 whole runs under real faults, a quarter of an hour; ARGS="--seed 7" tells one of them
	$(BIN)/python tests/chaos.py $(ARGS)

lint: .venv/test ## ruff (rules, format) and mypy (strict)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

serve-s3: .venv/run ## Start the local S3 server, or find it running; its keys are in .local/s3/env
	@$(BIN)/python deploy/local_s3.py start --folder $(S3)

stop-s3: ## Stop the local S3 server; its data stay
	@[ ! -d $(S3) ] || $(or $(and $(SOUND),$(BIN)/python),$(PYTHON)) deploy/local_s3.py stop --folder $(S3)

bench: .venv/bench ## Speed beside peers, an hour and a half; ARGS="--quick --only peers" goes to tests/bench
	cd tests && ../$(BIN)/python -m bench $(ARGS)

gpu-check: .venv/gpu ## On a machine with a GPU, ten minutes: its bits beside the CPU's, then its speed
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.accelerator.is_available())' \
		|| { echo 'torch sees no accelerator on this machine: nothing to check' >&2; exit 1; }
	$(BIN)/python -m pytest tests/engine/test_golden.py tests/engine/test_gpu.py
	cd tests && ../$(BIN)/python -m bench --only accelerator --quick $(ARGS)

image-check: .venv/test ## As root, on Debian: build the image without a container engine, run a job in it
	$(BIN)/python tests/image.py

clean: stop-s3 ## Stop the server; remove .venv, .local, caches and build leftovers
	rm -rf .venv .local build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The installations: what a run needs, and what the picture, the tests and the bench need as well.

.venv/run: .venv/made pyproject.toml constraints.txt
	$(call install,local)

.venv/picture: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)picture)
	@touch .venv/run

.venv/test: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)picture$(comma)test)
	@touch .venv/run .venv/picture

.venv/bench: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)bench)
	@touch .venv/run

.venv/gpu: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)picture$(comma)test$(comma)bench$(comma)gpu)
	@touch .venv/run .venv/picture .venv/test .venv/bench

comma := ,

define install
@echo 'Installing into .venv; the first time takes minutes.'
@touch .venv/installing
$(BIN)/python -m pip install --quiet -c constraints.txt setuptools
$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[$(1)]'
@rm .venv/installing
@touch $@
endef

ifneq ($(SOUND),yes)
.PHONY: .venv/made
endif
.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo 'Python 3.11 is needed, and `$(PYTHON)` is not it: make PYTHON=/path/to/python3.11 ...' >&2; \
		exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	@pwd -P > $@
