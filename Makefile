# Everything here needs only Python 3.11 or newer and make (image-check also Docker).
# Another Python: make setup PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
BEGAN := $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help setup test check demo image-check clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv and install asyncq into it, with all that developing needs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "asyncq needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: setup ## run the tests
	$(BIN)/pytest -q -n 2 --dist worksteal

check: setup ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist worksteal

# One shell runs the whole recipe. Its trap makes it wait, at Ctrl-C, until the training has stopped in order; the
# training's exit status then ends the recipe.
demo: setup ## train Pong without sticky actions, measure the agent over 30 games, record a video
	@trap : INT; set -eu; run=runs/demo-$$(date +%Y%m%d-%H%M%S); best=$$run/best.h5; \
	$(BIN)/asyncq train --method a3c --env PongNoFrameskip-v4 --target-return 18 --total-steps 2000000 --run-dir $$run; \
	$(BIN)/asyncq evaluate $$best --episodes 30 --seed 1000; \
	$(BIN)/asyncq play $$best --record $$run/pong.mp4 --overlay; \
	seconds=$$(($$(date +%s) - $(BEGAN))); \
	echo "weights: $$best"; \
	echo "video:   $$run/pong.mp4"; \
	echo "time:    $$((seconds / 60)) min $$((seconds % 60)) s from make demo to here"

image-check: ## build the image with Docker, and train, evaluate and record in it
	docker build -t asyncq .
	docker run --rm --interactive --entrypoint sh asyncq -s < docker/check.sh
	docker image ls asyncq

clean: ## remove .venv, build output and caches; runs/ stays
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
