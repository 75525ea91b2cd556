# Two commands matter: `make run` tries Keyrack on this machine, `make test` checks everything.
.PHONY: install run test lint types tests bench help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-10s %s\n", $$1, $$2}' Makefile

install: ## Leave .venv/bin/keyrack
	@sh scripts/install.sh

run: install ## Service, database and a demo host on loopback
	@sh scripts/packages.sh sshd=openssh-server ssh=openssh-client git=git || true
	@.venv/bin/keyrack up $(ARGS)

test: ## Lint, types and all tests, with what they need installed first
	@sh scripts/install.sh dev
	@sh scripts/packages.sh sshd=openssh-server ssh=openssh-client git=git curl=curl \
	  '/usr/lib/postgresql/*/bin/initdb=postgresql' runuser=util-linux debootstrap=debootstrap \
	  systemd-nspawn=systemd-container
	@sh scripts/hosts.sh bullseye bookworm trixie
	@$(MAKE) --no-print-directory lint types tests

lint: ## Ruff
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: ## Strict types
	@.venv/bin/mypy

tests: ## The tests alone
	@.venv/bin/pytest

bench: ## The benchmarks, which print ratios
	@for file in bench/*.py; do echo "== $$file"; .venv/bin/python $$file || exit 1; done
