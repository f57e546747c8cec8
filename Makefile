# make help lists the targets. The first of any of them makes .venv ready; later ones start at once.

CHECKPOINT ?= resources/samples/modelopt/qwen3-36layers-fp8-kvfp8
JOBS ?= 2
BIN := .venv/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench screenshots translations clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' Makefile | while IFS='|' read -r target what; do printf 'make %-12s %s\n' "$$target" "$$what"; done

setup: ## make .venv ready (all others do this first)
	@.ci/setup

run: setup ## open a bundled sample, or CHECKPOINT=path; without a display, print its report
	@$(BIN)/kvscope $(CHECKPOINT)

lint: setup ## ruff, mypy --strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo

test: lint ## every check: lint, then pytest on JOBS=2 processes
	@$(BIN)/pytest -n $(JOBS)

bench: setup ## measure what the performance targets are about
	@$(BIN)/python -m tests.bench

PICTURES := dropped-light loads-light loads-per-head-dark raises-dark doubtful-light compare-light chinese-dark
screenshots: setup ## draw the README's pictures, and every panel in .screenshots: themes, languages, sizes
	@QT_QPA_PLATFORM=offscreen $(BIN)/python -m app.screenshots resources/screenshots --only $(PICTURES)
	@QT_QPA_PLATFORM=offscreen $(BIN)/python -m app.screenshots .screenshots --all

translations: setup ## bring the catalogues of resources/translations up to date and compile them
	@$(BIN)/python -m app.translations

clean: ## remove caches and build outputs (.venv stays)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .bench .screenshots
	@find app core resources tests -name __pycache__ -prune -exec rm -rf {} +
