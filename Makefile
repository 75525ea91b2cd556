# Short names for those who have make; the work is done by scripts/run, scripts/test, scripts/check and scripts/install.
.PHONY: install run test check lint types tests bench figures help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

install: ## Leave .venv/bin/keyrack
	@sh scripts/install

run: ## Service, database and a demo host on loopback
	@sh scripts/run $(ARGS)

test: ## Lint, types and all tests, with what they need installed first
	@sh scripts/test $(ARGS)

check: ## Between two changes: lint, types and the tests that need nothing of the system
	@sh scripts/check $(ARGS)

lint: ## Ruff
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: ## Strict types
	@.venv/bin/mypy

tests: ## The tests alone
	@.venv/bin/pytest

bench: ## What is promised, measured, without what tries to break it: writes docs/figures.md
	@.venv/bin/python bench/figures.py $(ARGS)

figures: ## All of docs/figures.md from one run of an hour; stopped, it goes on
	@.venv/bin/python bench/whole.py $(ARGS)
