# demo: see it work · test: everything but the long runs · soak: the long random runs · check: style, types, layers
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= $(shell echo $$((2 * $$(nproc))))  # tests mostly wait for servers and processes
BIN = $(VENV)/bin
READY = $(VENV)/.ready

# The suite starts hundreds of processes: without bytecode on the disk, each would compile the whole program anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test soak check bench clean

demo: $(READY)
	$(BIN)/dualwrite demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -m "not soak" -n $(WORKERS) --dist worksteal $(ARGS)

soak: $(READY)
	$(BIN)/python -m pytest -m soak $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m bench $(ARGS)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
