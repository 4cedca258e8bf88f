# make up     everything on this machine, until Ctrl-C        make test   every check and every test
# make lint   style, import direction, types                  make lock   pin what .venv holds now
# make clean  remove what was built (the data in .retort stays)
#
# PYTHON=…       the interpreter to use (3.11 or newer)
# TORCH_INDEX=…  an index that torch alone is taken from: PyTorch's CPU builds on an ordinary machine
# PORT=…         the first of five ports in a row (8460)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: up test lint lock clean frontend environment
export PYTHON TORCH_INDEX

up: environment frontend
	@exec .venv/bin/retort up $(if $(PORT),--port $(PORT))

environment:
	@scripts/environment.sh

frontend: environment
	@scripts/frontend.sh

lint: environment
	@scripts/lint.sh

test:
	@scripts/test.sh $(ARGS)

lock: environment
	@scripts/lock.sh

clean:
	rm -rf .venv app/static app/frontend/node_modules build *.egg-info tests/output .pytest_cache .ruff_cache .hypothesis
