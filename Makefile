# The two commands of the README are 'make demo' and 'make test'; the others are parts of them.
SHELL := /bin/bash
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test test-unit check docs bench setup tool-image job-wheel clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: setup ## lock, build, test and run examples in containers, and submit one to the emulator
	@scripts/demo.sh

test: ## set up, check, and run all tests
	@scripts/setup.sh --torch
	@$(MAKE) --no-print-directory check
	$(PYTEST) $(PYTEST_ARGS)

test-unit: ## the tests that need neither Docker nor a network (those of training: PyTorch, if it is here)
	@scripts/setup.sh --no-docker
	$(PYTEST) tests/unit -m "not network" $(PYTEST_ARGS)

check: ## formatting, lint, types, import contracts
	@scripts/setup.sh --no-docker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: ## the documentation site, into build/site; fails at the first warning, and needs no network
	@scripts/setup.sh --no-docker
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict 2>&1 | { grep -v '^INFO' || true; }; exit $${PIPESTATUS[0]}
	@echo "build/site/index.html; with its search: $(BIN)/python -m http.server --directory build/site"

bench: setup ## measure against a plain Dockerfile; writes build/bench.json
	PYTHONPATH=scripts:tests $(BIN)/python -m bench $(BENCH_ARGS)

setup: ## install what is missing (Debian as root), or say what is
	@scripts/setup.sh

tool-image: setup ## the image of the tool itself, as himl-container:latest
	@scripts/tool_image.sh

job-wheel: ## the wheel of what a job needs, which the examples name, in examples/wheels
	@scripts/setup.sh --no-docker
	$(BIN)/python scripts/job_wheel.py

clean: ## remove what the commands above made in this folder, the offline kit included
	rm -rf .venv .kit build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf examples/wheels examples/*/{runs,wheels,data,dataset,outputs,logs,results}
	rm -f examples/*/{pylock.himl.toml,most_recent_run.txt}
	find himl_container scripts tests examples -name __pycache__ -type d -exec rm -rf {} +
