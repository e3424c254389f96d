"""`make export`: an augmented corpus as an ordinary dataset folder, which `datasets.load_dataset` reads and a hub takes."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from instpt_assets.augmentation.dataset_card import RAW_CONFIG, Licenses, ShardRecord, render_card
from instpt_assets.augmentation.dataset_folder import ExportError, write_dataset
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.plan import Plan
from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.manifest import SOURCE, Input, Manifest
from instpt_assets.store.store import Artifact, Store

_RAW_COLUMNS = ["document_id", "text", "metadata"]


def main() -> None:
    """Export what the arguments name of the project that the environment names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair-set", default=None, help="whose augmented corpus; not needed where the recipe has one pair set")
    parser.add_argument("--out", default="", help="a folder that is empty or not there yet, or a remote one (s3://bucket/prefix)")
    parser.add_argument("--shards", default="", help="shards, separated by blanks; by default all that are there")
    parser.add_argument("--raw", action="store_true", help="put the documents before augmentation beside it, as the configuration raw")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(export(Project.from_environment(), arguments.pair_set, arguments.out, arguments.shards.split(), raw=arguments.raw))
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")


def export(project: Project, pair_set: str | None, out: str, shards: Sequence[str] = (), *, raw: bool = False) -> str:
    """Write the dataset folder.

    Args:
        project: whose current artifacts are taken.
        pair_set: whose augmented corpus; not needed where the recipe has one.
        out: a folder or a remote URL, empty or not there yet, or one that holds this very dataset.
        shards: by default all whose augmented corpus is there.
        raw: whether the documents before augmentation come along.

    Returns:
        What to tell a person: what was written, and how to load and to publish it.

    Raises:
        UserError: nothing is materialized, a named shard is not, there is no text, shards do not belong together, or `out` is not free.
        ValueError: there is no such pair set or shard.
    """
    if not out:
        raise ValueError("OUT: say where the dataset is to be written (a folder, or s3://bucket/prefix)")
    pair_set = _chosen(project.recipe, pair_set)
    plan = project.plan()
    artifacts, left_out = _artifacts(plan, pair_set, shards)
    num_texts = sum(artifact.manifest.statistics["num_rows"] for artifact in artifacts.values())
    if not num_texts:
        raise ExportError(f"'{pair_set}' has no text in {', '.join(artifacts)}: it chose no document there, or cleaning left none")
    records = project.store.each(lambda key: _record(project.store, key, artifacts[key]), artifacts)
    others = _others(project.store, records)
    licenses = Licenses()
    for artifact in artifacts.values():
        licenses.add(artifact.tables())
    name = f"{project.recipe.name}-{pair_set}"
    try:
        card = render_card(
            name=name,
            pair_set=pair_set,
            shards=records,
            others=others,
            deduplication=_deduplication(project.store, records),
            left_out=left_out,
            licenses=licenses,
            raw=raw,
        )
    except ValueError as error:
        raise ExportError(f"{error}: {_command(pair_set)}") from error
    provenance = {
        "pair_set": pair_set,
        "configurations": ["augmented", *([RAW_CONFIG] if raw else [])],
        "made_with": [_identified(manifest) for manifest in others],
        "shards": {record.key: [_identified(manifest) for manifest in record.stages.values()] for record in records},
    }
    with TemporaryDirectory() as folder:
        data = _data(project.store, artifacts, records if raw else [], Path(folder))
        written = write_dataset(out, data, card=card, provenance=provenance)
    told = [
        f"{'written' if written else 'already there'}: {out}: {num_texts:,} texts of {len(records)} shards of '{pair_set}'",
        *([f"not in it, since they are not materialized or not named: {', '.join(left_out)}"] if left_out else []),
        f"load:    datasets.load_dataset({out!r}, split='train')" if "://" not in out else "load:    from a local copy or the hub",
        f"publish: hf upload <user>/{name} {out} --repo-type dataset" if "://" not in out else "",
    ]
    return "".join(f"{line}\n" for line in told if line)


def _chosen(recipe: Recipe, pair_set: str | None) -> str:
    names = list(recipe.pair_sets)
    if pair_set is None and len(names) == 1:
        return names[0]
    if pair_set not in names:
        what = "say which" if pair_set is None else f"the recipe '{recipe.name}' has no pair set '{pair_set}'"
        raise ValueError(f"PAIR_SET: {what} (it has: {', '.join(names) or 'none'})")
    return pair_set


def _artifacts(plan: Plan, pair_set: str, shards: Sequence[str]) -> tuple[dict[str, Artifact], list[str]]:
    """The augmented corpora by shard, in the order of registration, and the registered shards that are left out."""
    registered = plan.registered_shards  # what its source has lost is published no more
    unknown = sorted(set(shards) - set(registered))
    if unknown:
        raise ValueError(f"SHARDS: not registered: {', '.join(unknown)} (registered: {', '.join(registered) or 'none'})")
    wanted = [key for key in registered if key in shards or not shards]

    def current(key: str) -> Artifact | None:
        try:
            return plan.current(f"{pair_set}/augmented_corpus", key)
        except NotMaterialized as error:
            if shards:
                raise NotMaterialized(f"{error}: {_command(pair_set)} SHARDS='{key}'") from error
            return None

    found = {key: artifact for key, artifact in zip(wanted, plan.store.each(current, wanted), strict=True) if artifact is not None}
    if not found:
        raise NotMaterialized(f"{pair_set}/augmented_corpus: no shard is materialized yet: {_command(pair_set)}")
    return found, [key for key in registered if key not in found]


def _command(pair_set: str) -> str:
    return f"""make materialize SELECT='+key:"{pair_set}/augmented_corpus"'"""


def _record(store: Store, key: str, artifact: Artifact) -> ShardRecord:
    """The shard's manifests, followed from its texts back to its source: what they were made from, whatever is current now."""
    augmented = artifact.manifest
    pair_set = augmented.asset.split("/")[0]
    pairs = _made_from(store, augmented, f"{pair_set}/instruction_pairs")
    clean = _made_from(store, augmented, "clean_corpus")
    return ShardRecord(key, augmented, pairs, clean, _made_from(store, clean, "raw_corpus"))


def _made_from(store: Store, manifest: Manifest, asset: str) -> Manifest:
    return _stored(store, next(item for item in manifest.inputs if item.asset == asset)).manifest


def _deduplication(store: Store, records: Iterable[ShardRecord]) -> list[dict[str, Any]]:
    """The recipes by which duplicates were found, each once; the order of the shards is none of it."""
    found = {item.identity: item for record in records for item in record.clean.inputs if item.asset == "duplicate_documents"}
    recipes = [{k: v for k, v in _stored(store, item).manifest.recipe.items() if k != "order"} for item in found.values()]
    return [recipe for place, recipe in enumerate(recipes) if recipe not in recipes[:place]]


def _stored(store: Store, item: Input) -> Artifact:
    artifact = store.get(item.asset, item.partition, item.identity)
    if artifact is None:
        raise ExportError(f"{item.asset}, {item.partition}: the artifact {item.identity} is gone from the store: materialize it again")
    return artifact


def _others(store: Store, records: Iterable[ShardRecord]) -> list[Manifest]:
    """What the pairs were made with beside the corpus, and that in turn, each once: the synthesizer, its tuning collection, …."""
    found: dict[tuple[str, str], Manifest] = {}
    waiting = [item for record in records for item in (*record.pairs.inputs, *record.augmented.inputs) if item.partition == "all"]
    while waiting:
        item = waiting.pop(0)
        if not item.asset.startswith(SOURCE) and (item.asset, item.identity) not in found:
            manifest = found[item.asset, item.identity] = _stored(store, item).manifest
            waiting += [own for own in manifest.inputs if own.partition == "all"]
    return list(found.values())


def _identified(manifest: Manifest) -> dict[str, str | int]:
    fields = ("asset", "partition", "identity", "digest", "code_version")
    return {name: getattr(manifest, name) for name in fields}


def _data(store: Store, artifacts: dict[str, Artifact], raw: Iterable[ShardRecord], folder: Path) -> Iterator[tuple[str, Path]]:
    """The data files: the stored ones as they are, and documents without the place where they lay on this machine."""
    for key, artifact in artifacts.items():
        for number, path in enumerate(artifact.tables()):
            yield f"data/augmented/{key}-{number:05d}.parquet", path
    for record in raw:
        for number, path in enumerate(_stored(store, record.clean.as_input()).tables()):
            copy = folder / "documents.parquet"
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow.empty_table().select(_RAW_COLUMNS).schema
                with pq.ParquetWriter(copy, schema, compression="zstd") as writer:
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group, columns=_RAW_COLUMNS))
            yield f"data/{RAW_CONFIG}/{record.key}-{number:05d}.parquet", copy


if __name__ == "__main__":
    main()
