# `make` alone lists the targets. Everything they make is under .venv and .local, and in tool caches.

PYTHON ?= python3.11
ARGS ?=

SHELL := /bin/sh
S3 := .local/s3
BIN := .venv/bin
STORE := s3://polyfit/runs

# The environment is used if it was made in this folder (its scripts contain the folder's name), if it
# works, and if no installation into it was interrupted.
SOUND := $(shell [ "$$(cat .venv/made 2>/dev/null)" = "$$(pwd -P)" ] && [ ! -e .venv/installing ] \
	&& $(BIN)/python -c 'import pip' 2>/dev/null && echo yes)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run picture test check simulate chaos lint serve-s3 stop-s3 bench gpu-check kubectl prometheus sbom image-check monitoring-check clean
.DEFAULT_GOAL := help

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

run: serve-s3 ## Run jobs/sweep.yaml on Ray, into a local S3 server, and write its report
	@. $(S3)/env && env -u RAY_ADDRESS $(BIN)/polyfit run jobs/sweep.yaml --executor ray --store $(STORE) $(ARGS)
	@. $(S3)/env && $(BIN)/polyfit report sweep --store $(STORE) --out .local/report.html
	@echo
	@echo 'To see the run, open .local/report.html in a browser.'
	@echo 'The run is in a local S3 server, which stays up. To look at it, with the address above:'
	@echo '  . $(S3)/env && $(BIN)/polyfit results sweep --store $(STORE) --sort -max_error'
	@echo '  . $(S3)/env && $(BIN)/polyfit verify sweep --store $(STORE)'
	@echo 'To stop the server: make stop-s3'

picture: run ## Draw the picture of README.md from that run
	@. $(S3)/env && $(BIN)/python jobs/pictures.py $(STORE) sweep

test: .venv/test ## All tests; ARGS="tests/spec -k plan -x": some of them
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/test ## Lint, and the quick tests without servers, clusters and processes: two minutes
	$(MAKE) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not server and not process and not slow" $(ARGS)

simulate: .venv/test ## 100,000 simulated histories of faults; ARGS="--seed 7": show one
	$(BIN)/python tests/simulate.py $(ARGS)

chaos: .venv/test ## 50 runs under real faults, 15 minutes; ARGS="--seed 7": show one
	$(BIN)/python tests/chaos.py $(ARGS)

lint: .venv/test ## ruff (rules, format) and mypy (strict)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

serve-s3: .venv/run ## Start the local S3 server; its keys are in .local/s3/env
	@$(BIN)/python deploy/local_s3.py start --folder $(S3)

stop-s3: ## Stop the local S3 server; its data are kept
	@[ ! -d $(S3) ] || $(or $(and $(SOUND),$(BIN)/python),$(PYTHON)) deploy/local_s3.py stop --folder $(S3)

bench: .venv/bench ## Speed beside peers, 90 minutes; ARGS="--quick --only peers": a part
	cd tests && ../$(BIN)/python -m bench $(ARGS)

gpu-check: .venv/gpu ## On a machine with a GPU, 10 minutes: compare its bits with the CPU's, measure it
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.accelerator.is_available())' \
		|| { echo 'torch sees no accelerator on this machine: nothing to check' >&2; exit 1; }
	$(BIN)/python -m pytest tests/engine/test_golden.py tests/engine/test_gpu.py
	cd tests && ../$(BIN)/python -m bench --only accelerator --quick $(ARGS)

kubectl: .local/bin/kubectl ## Get kubectl and kustomize, 36 MB, for the tests of deploy/

.local/bin/kubectl: .venv/made tests/kubectl.py
	$(BIN)/python tests/kubectl.py

prometheus: .local/bin/promtool ## Get Debian's Prometheus, for the tests of deploy/monitoring

.local/bin/promtool: .venv/made tests/prometheus.py
	$(BIN)/python tests/prometheus.py

monitoring-check: .venv/test prometheus ## Four minutes: Prometheus scrapes a run; every panel has data and is drawn, an alert fires
	$(BIN)/python tests/monitoring.py

sbom: .venv/sbom ## What the package needs at run time, with licences, as CycloneDX: .local/sbom.json
	@mkdir -p .local
	$(BIN)/python deploy/sbom.py > .local/sbom.json

image-check: .venv/test ## As root on Debian: build the image, run a job in it
	$(BIN)/python tests/image.py

clean: stop-s3 ## Stop the server; remove .venv, .local, caches, build files
	rm -rf .venv .local build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The installations: what a run needs, and what the tests and the bench need as well.

.venv/run: .venv/made pyproject.toml constraints.txt
	$(call install,local)

.venv/test: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)test)
	@touch .venv/run

.venv/bench: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)bench)
	@touch .venv/run

.venv/gpu: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)test$(comma)bench$(comma)gpu)
	@touch .venv/run .venv/test .venv/bench

.venv/sbom: .venv/made pyproject.toml constraints.txt
	$(call install,local$(comma)sbom)
	@touch .venv/run

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
