# The commands of the README. Each sets up the environment first; `make` alone does nothing else.

# The first Python that can build the environment. Byte-identical outputs are promised for 3.11 only.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c '$(USABLE)' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
# The stages call plain `python`, so that an experiment in another folder uses the same environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The folder in which `local-data` finds data/ and models/.
SHARED ?= ../shared

.PHONY: setup trackers remotes repro resolve pull metrics experiments seeds sweep review post-review \
	quick test thorough verify verify-processors lint format coverage local-data pins clean

setup: $(VENV)/.configured

# Exactly the pins, never newer ones. Notebooks use the installed package; stages run the code of this folder.
$(VENV)/.installed: requirements.txt pyproject.toml
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { \
		echo "setup: needs Python 3.11, 3.12 or 3.13 with venv and pip; name it: make PYTHON=COMMAND" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# What a clone needs besides the environment, such as the merge drivers in its git configuration.
$(VENV)/.configured: $(VENV)/.installed $(wildcard tools/*.py)
	python tools/install.py
	touch $@

# The trackers of `report_to`, besides TensorBoard. --no-deps: what they need is in the file, and no other pin changes.
trackers: $(VENV)/.trackers

$(VENV)/.trackers: requirements-trackers.txt $(VENV)/.installed
	$(BIN)/python -m pip install --no-deps -r requirements-trackers.txt
	touch $@

# The remote on S3, and a server of S3 for its test. --no-deps: no other pin changes.
remotes: $(VENV)/.remotes

$(VENV)/.remotes: requirements-remotes.txt $(VENV)/.installed
	$(BIN)/python -m pip install --no-deps -r requirements-remotes.txt
	touch $@

# Files that a killed dvc left half written are repaired first. The last line says whether the results are those of the commit.
repro: setup
	python stages/mend.py
	dvc repro
	@python tools/differences.py

# The figures of the workspace that matter most, or their change since a revision: make metrics BASE=main.
metrics: setup
	@python tools/metrics.py $(if $(BASE),"$(BASE)")

# The experiments of this commit, with the columns of `dvc exp show` that matter.
experiments: setup
	@python tools/experiments.py

# What changed since a revision, as a page with all plots, in review/: make review BASE=main.
review: setup
	python tools/review.py "$(or $(BASE),main)"

# Show review/review.md in the summary of a CI job, and as a comment where the token allows.
post-review: setup
	python tools/post_review.py

# After a merge: merge dvc.lock, metrics and plots where git left conflicts, and run the stages that changed on both sides.
resolve: setup
	python tools/resolve.py
	python stages/mend.py
	dvc repro
	@echo "resolve: commit dvc.lock, metrics/ and plots/; git status shows:"; git status --short

# Fetch the outputs of dvc.lock from the remote of docs/remotes.md instead of running the stages.
pull: setup
	@python tools/pull.py

# Three tiers. `quick` is for each change of the code: at most 3 minutes on 2 cores.
quick: setup
	pytest -m "not slow"

# For each change that is to be merged: 20 to 30 minutes on 2 cores. The slowest tests are listed at the end.
test: setup
	pytest --durations=15

# All tests, nightly and before a release: with other models, data and settings, what `test` has seen once.
thorough: setup trackers remotes
	RLHF_FUZZ=10 pytest -m "" --durations=15

# Test that a commit gives the same bytes: the tiny world in two folders and two environments, and twice with one thread.
verify: setup
	pytest -m "" tests/test_verify.py

# Test that other processors give the same bytes. qemu-user (apt-get install qemu-user) emulates them.
verify-processors: setup
	pytest -m "" --durations=15 tests/test_processors.py

lint: setup
	ruff check .
	ruff format --check .
	mypy
	PYTHONPATH=stages lint-imports
	check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --quiet --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	check-jsonschema --quiet --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	check-jsonschema --quiet --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff
	proselint check --config lint/proselint.json $$(git ls-files '*.md' CITATION.cff .github/ISSUE_TEMPLATE)
	python lint/vocabulary.py $$(git ls-files '*.md' '*.py' '*.toml' '*.yml' params.yaml dvc.yaml profiles requirements.in Makefile CITATION.cff)

format: setup
	ruff check --fix .
	ruff format .

# Copy the inputs of the profiles *-local and stories-llama: reviews and preferences to data/raw, models to models/pretrained.
local-data:
	@for source in data/imdb data/hh-rlhf models/imdb-gpt2-10m models/stories260K; do test -d "$(SHARED)/$$source" || { \
		echo "local-data: $(SHARED)/$$source is missing; name the folder that has it: make local-data SHARED=FOLDER" >&2; \
		echo "The reviews are public: the Large Movie Review Dataset (Maas et al. 2011, https://ai.stanford.edu/~amaas/data/sentiment)." >&2; \
		echo "To use its archive: tar -C data/raw -xf aclImdb_v1.tar.gz, and set data.source: data/raw/aclImdb in params.yaml." >&2; \
		echo "The preferences are public too: https://github.com/anthropics/hh-rlhf." >&2; \
		echo "profiles/distilgpt2-imdb.yaml and profiles/hh-rlhf.yaml need no local files: they load data and model from the hub." >&2; \
		exit 1; }; done
	@mkdir -p data/raw/imdb data/raw/hh-rlhf models/pretrained/imdb-gpt2-10m models/pretrained/stories260K
	@for name in imdb hh-rlhf; do cp -f "$(SHARED)"/data/$$name/*.jsonl.gz data/raw/$$name/; done
	@for model in imdb-gpt2-10m stories260K; do cp -f "$(SHARED)"/models/$$model/* models/pretrained/$$model/; done
	@chmod -R u+w data/raw/imdb data/raw/hh-rlhf models/pretrained/imdb-gpt2-10m models/pretrained/stories260K
	@echo "local-data: data/raw/imdb, data/raw/hh-rlhf, models/pretrained/imdb-gpt2-10m, models/pretrained/stories260K"

# Train seeds 1 to N, or those of SEEDS="3 7", and write docs/results/seeds.md. A stopped run goes on.
.PHONY: seeds sweep
N ?= 5
SEEDS ?= $(shell seq 1 $(N))
seeds: setup
	python tools/seeds.py $(SEEDS)

# Compare PPO with that of trl 1.12.0, the last release that has it, in an environment of its own. It takes about an hour.
.PHONY: benchmark
ROUNDS ?= 3
benchmark: setup .venv-trl/.installed
	python benchmarks/compare.py --rounds $(ROUNDS)

.venv-trl/.installed:
	test -x .venv-trl/bin/python || "$$(readlink -f $(BIN)/python)" -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet "$$(grep '^torch==' requirements.txt)" trl==1.12.0
	touch $@

# Try the settings of a file on the validation prompts, and write docs/results/sweeps/NAME.md. A stopped sweep goes on.
SPEC ?= sweeps/kl.yaml
sweep: setup
	python tools/sweep.py "$(SPEC)"

# Resolve requirements.in again. torch is pinned without the tag of the build at hand ("+cpu"), to install anywhere.
pins: setup
	python -m pip install pip-tools==7.6.2
	pip-compile --quiet --upgrade --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--output-file requirements.txt requirements.in
	sed -i.bak 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.txt && rm requirements.txt.bak

# The share of stages/ that the tests of `make test` run, line by line. Code that only subprocesses run does not count.
coverage: setup
	pytest --cov --cov-report=term:skip-covered

clean:
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .coverage
