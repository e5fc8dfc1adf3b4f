# The commands of the README, each with its set-up. `make` alone sets up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The stages call plain `python`, so that an experiment in another folder uses the same environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup repro test lint format pins clean

setup: $(VENV)/.installed

# Exactly the pins, never newer ones.
$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

repro: setup
	dvc repro

test: setup
	pytest

lint: setup
	ruff check .
	ruff format --check .
	mypy

format: setup
	ruff check --fix .
	ruff format .

# Resolve requirements.in anew. torch is pinned without the tag of the build at hand ("+cpu"), to install anywhere.
pins: setup
	python -m pip install pip-tools==7.6.2
	pip-compile --quiet --upgrade --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.txt requirements.in
	sed -i.bak 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.txt && rm requirements.txt.bak

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache
