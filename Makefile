# make demo         set up, materialize the whole graph of the demo recipe, print the comparison
# make materialize  the same for INSTPT_RECIPE; SELECT='<Dagster asset selection>', SHARDS='<shard> <shard> …';
#                   TOKENS=<generated tokens>, MINUTES=<minutes>: where a run that writes pairs stops
# make plan         what writing pairs would do: what is there and missing, tokens, time, cost; PAIR_SET=<name>, SHARDS='…'
# make pilot        pairs for PASSAGES (36) passages, shown, and what all would take; PAIR_SET=<name>, CORPUS=<name>
# make pairs        pairs for the text on standard input as JSON Lines on standard output; PAIR_SET=<name>
# make export       an augmented corpus as a dataset folder for datasets.load_dataset or a hub; OUT=<folder or URL>, PAIR_SET=<name>,
#                   SHARDS='…', RAW=1: with the documents before augmentation beside it
# make trace        what stands in a training sequence: ARM=<name> SEQUENCE=<n> or STEP=<n> or DOCUMENT=<id>; SEED=, TOKENS=<from>-<to>, JSON=1
# make bundle       a training as a folder for a bare machine: ASSET=<arm>/pretrained_checkpoint OUT=<folder>; SEED=, MAX_FILE_MB=
# make join         on every further node: waits for trainings at RENDEZVOUS=<host>:<port>
# make ui           Dagster's UI at http://$(HOST):$(PORT), the recipe's shards registered
# make test         set up and pass the tests
# make check        lint, format, types
# make acceptance   what takes long: kill and fault series, large backfills, benchmarks
# make clean-store  remove what killed processes left in the store DAYS (7) ago or earlier
# Environment: INSTPT_RECIPE, INSTPT_EXECUTION, INSTPT_STORE, DAGSTER_HOME, INSTPT_EXTRA (README.md).

HOST ?= 127.0.0.1
PORT ?= 3000
export SELECT SHARDS TOKENS MINUTES PAIR_SET CORPUS PASSAGES DAYS OUT RAW ARM SEED SEQUENCE STEP DOCUMENT JSON ASSET MAX_FILE_MB RENDEZVOUS
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONDONTWRITEBYTECODE VIRTUAL_ENV

.PHONY: demo materialize plan pilot pairs export trace bundle join ui test check acceptance clean-store setup clean

demo: setup
	INSTPT_RECIPE=demo python -m instpt_assets.defs.materialize

materialize: setup
	python -m instpt_assets.defs.materialize $${SELECT:+--select "$$SELECT"} $${SHARDS:+--shards "$$SHARDS"} $${TOKENS:+--tokens "$$TOKENS"} $${MINUTES:+--minutes "$$MINUTES"}

plan: setup
	@python -m instpt_assets.defs.pair_plan $${PAIR_SET:+--pair-set "$$PAIR_SET"} $${SHARDS:+--shards "$$SHARDS"}

pilot: setup
	@python -m instpt_assets.defs.pair_pilot $${PAIR_SET:+--pair-set "$$PAIR_SET"} $${CORPUS:+--corpus "$$CORPUS"} $${PASSAGES:+--passages "$$PASSAGES"}

pairs: setup
	@python -m instpt_assets.defs.text_pairs $${PAIR_SET:+--pair-set "$$PAIR_SET"}

export: setup
	@python -m instpt_assets.defs.export --out "$$OUT" $${PAIR_SET:+--pair-set "$$PAIR_SET"} $${SHARDS:+--shards "$$SHARDS"} $${RAW:+--raw}

trace: setup
	@python -m instpt_assets.defs.trace --arm "$$ARM" $${SEED:+--seed "$$SEED"} $${SEQUENCE:+--sequence "$$SEQUENCE"} $${STEP:+--step "$$STEP"} $${DOCUMENT:+--document "$$DOCUMENT"} $${TOKENS:+--tokens "$$TOKENS"} $${JSON:+--json}

bundle: setup
	@python -m instpt_assets.defs.bundle "$$ASSET" --out "$$OUT" $${SEED:+--seed "$$SEED"} $${MAX_FILE_MB:+--max-file-mb "$$MAX_FILE_MB"}

join: setup
	@python -m instpt_assets.training.join "$$RENDEZVOUS"

ui: setup
	home="$$(python -m instpt_assets.defs.home --host $(HOST) --port $(PORT))" && DAGSTER_HOME="$$home" exec dagster dev -w workspace.yaml -h $(HOST) -p $(PORT)

test: setup
	python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: setup
	ruff check .
	ruff format --check .
	mypy

acceptance: setup
	python -m pytest -m slow --timeout=3600 --durations=0 -rpfEs

clean-store: setup
	python -m instpt_assets.defs.clean_store $${DAYS:+--days "$$DAYS"}

# What it says goes where errors go, and it reads nothing: standard output and input are the command's.
setup:
	@deploy/setup.sh >&2 </dev/null

# What can be made again; the store and Dagster's history under .instpt stay.
clean:
	rm -rf .venv .instpt/tools .mypy_cache .ruff_cache .pytest_cache
