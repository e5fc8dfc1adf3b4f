# The commands of the README, each with its set-up. `make` alone sets up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# The stages call plain `python`, so that an experiment in another folder uses the same environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Where `local-data` finds data/ and models/.
SHARED ?= ../shared

.PHONY: setup repro quick test thorough verify lint format local-data pins clean

setup: $(VENV)/.installed

# Exactly the pins, never newer ones. The package itself is for notebooks: the stages run the code beside them.
$(VENV)/.installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# What a dvc that was killed left half written is mended first.
repro: setup
	python stages/mend.py
	dvc repro

# Three tiers. `quick` is for each change of the code: at most 3 minutes on 2 cores.
quick: setup
	pytest -m "not slow"

# For each change that is to be merged: at most 18 minutes on 2 cores. The slowest tests are listed at the end.
test: setup
	pytest --durations=15

# All tests, nightly and before a release: with other models, data and settings, what `test` has seen once.
thorough: setup
	RLHF_FUZZ=10 pytest -m "" --durations=15

# The same commit gives the same bytes: the tiny world twice, in two folders and two environments, and twice with one thread.
verify: setup
	pytest -m "" tests/test_verify.py

lint: setup
	ruff check .
	ruff format --check .
	mypy
	PYTHONPATH=stages lint-imports

format: setup
	ruff check --fix .
	ruff format .

# Bring what the profiles *-local and stories-llama use: reviews and preferences below data/raw, models below models/pretrained.
local-data:
	@for source in data/imdb data/hh-rlhf models/imdb-gpt2-10m models/stories260K; do test -d "$(SHARED)/$$source" || { \
		echo "local-data: $(SHARED)/$$source is missing; name the folder that has it: make local-data SHARED=FOLDER" >&2; \
		echo "The reviews are public: the Large Movie Review Dataset (Maas et al. 2011, https://ai.stanford.edu/~amaas/data/sentiment)." >&2; \
		echo "Its archive is read as it is: tar -C data/raw -xf aclImdb_v1.tar.gz, and in params.yaml data.source: data/raw/aclImdb." >&2; \
		echo "The preferences are public, too: https://github.com/anthropics/hh-rlhf." >&2; \
		echo "Without files, profiles/distilgpt2-imdb.yaml and profiles/hh-rlhf.yaml load data and model from the hub." >&2; \
		exit 1; }; done
	@mkdir -p data/raw/imdb data/raw/hh-rlhf models/pretrained/imdb-gpt2-10m models/pretrained/stories260K
	@for name in imdb hh-rlhf; do cp -f "$(SHARED)"/data/$$name/*.jsonl.gz data/raw/$$name/; done
	@for model in imdb-gpt2-10m stories260K; do cp -f "$(SHARED)"/models/$$model/* models/pretrained/$$model/; done
	@chmod -R u+w data/raw/imdb data/raw/hh-rlhf models/pretrained/imdb-gpt2-10m models/pretrained/stories260K
	@echo "local-data: data/raw/imdb, data/raw/hh-rlhf, models/pretrained/imdb-gpt2-10m, models/pretrained/stories260K"

# Resolve requirements.in anew. torch is pinned without the tag of the build at hand ("+cpu"), to install anywhere.
pins: setup
	python -m pip install pip-tools==7.6.2
	pip-compile --quiet --upgrade --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.txt requirements.in
	sed -i.bak 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.txt && rm requirements.txt.bak

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache
