# Two commands do everything: `make serve` and `make test`. Both set up what they need first, and
# install nothing the second time.
.PHONY: help setup serve test check bench chaos format clean
.DEFAULT_GOAL := help

help:
	@echo "make serve   run it all here: engine, worker, local edge (ARGS='--port 9000' for options)"
	@echo "make test    run every test"
	@echo "make check   lint, formatting, types"
	@echo "make bench   measure (ARGS='--all', '--real', '--http', '--soak 30', … : see --help)"
	@echo "make chaos   kill, hang and break every part under load, count what became of the jobs"
	@echo "make format  format the code"
	@echo "make clean   remove the environments and caches"

setup:
	@scripts/setup-worker.sh
	@scripts/setup-engine.sh

serve: setup
	@exec .venv/bin/infinity-worker serve $(ARGS)

test: setup
	@scripts/setup-clients.sh
	@.venv/bin/pytest $(ARGS)

check:
	@scripts/setup-worker.sh
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy

bench: setup
	@.venv/bin/python -m bench $(ARGS)

chaos: setup
	@PYTHONPATH=tests:. .venv/bin/python -m chaos $(ARGS)

format:
	@scripts/setup-worker.sh
	@.venv/bin/ruff check --fix-only --quiet
	@.venv/bin/ruff format

clean:
	rm -rf .venv .tools engine/.venv tests/clients/.venv tests/clients/node/node_modules
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
