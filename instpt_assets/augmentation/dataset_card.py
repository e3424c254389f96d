"""The card of an exported corpus: what it is, what it was made from and by whom, counts, licences, how to load it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader

from instpt_assets.augmentation.augment import SCHEMA
from instpt_assets.augmentation.tables import batches, column
from instpt_assets.store.manifest import SOURCE, Manifest

RAW_CONFIG = "raw"
"""Configuration of the dataset with the documents as they were before augmentation."""
FIELDS = {
    "text_id": "names the text: the pair set, its first passage, and how many passages follow",
    "text": "what a model is trained on",
    "passage_ids": "its passages, in order; each is `<document_id>/<position>`",
    "num_pairs": "instruction-response pairs in the text",
    "layout": "how passages and pairs are laid out; `raw`: passages without pairs, verbatim",
    "license": "licence of each passage's document",
    "metadata": "what else the source says of each passage's document, as JSON text",
}
assert list(FIELDS) == SCHEMA.names

# By what a licence is called once letter case, blanks and version points are taken away; the hub knows these identifiers.
_HUB_LICENSES = {
    "cc0": "cc0-1.0", "cc010": "cc0-1.0", "ccby": "cc", "ccby20": "cc-by-2.0", "ccby25": "cc-by-2.5", "ccby30": "cc-by-3.0", "ccby40": "cc-by-4.0",
    "ccbysa30": "cc-by-sa-3.0", "ccbysa40": "cc-by-sa-4.0", "ccbync40": "cc-by-nc-4.0", "ccbyncsa40": "cc-by-nc-sa-4.0", "ccbynd40": "cc-by-nd-4.0",
    "mit": "mit", "apache20": "apache-2.0", "bsd3clause": "bsd-3-clause", "odcby": "odc-by", "odbl": "odbl",
}  # fmt: skip
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"), (10**8, "10M<n<100M"))
_MAX_SHARDS = 200
_MAX_LICENSES, _LICENSE_CHARACTERS = 50, 100


@dataclass(frozen=True)
class ShardRecord:
    """The manifests of one shard's artifacts, from its source to its texts."""

    key: str
    augmented: Manifest
    pairs: Manifest
    clean: Manifest
    raw: Manifest

    @property
    def stages(self) -> Mapping[str, Manifest]:
        """By stage, in the order of the work."""
        return {"raw_corpus": self.raw, "clean_corpus": self.clean, "instruction_pairs": self.pairs, "augmented_corpus": self.augmented}


@dataclass
class Licenses:
    """How many documents, passages and texts there are, by licence."""

    documents: Counter[str] = field(default_factory=Counter)
    passages: Counter[str] = field(default_factory=Counter)

    def add(self, tables: Iterable[Path]) -> None:
        """Count those of a shard; a document's passages stand one after another."""
        last = None
        for batch in batches(tables, ("passage_ids", "license")):
            for ids, licenses in zip(column(batch, "passage_ids"), column(batch, "license"), strict=True):
                for passage_id, name in zip(ids, licenses, strict=True):
                    document_id = passage_id.rpartition("/")[0]
                    self.passages[name or "unknown"] += 1
                    self.documents[name or "unknown"] += document_id != last
                    last = document_id

    def rows(self) -> list[tuple[str, int, int]]:
        """Licence, documents and passages as a table shows them: by name, of very many the most frequent, and the others together."""
        shown = sorted(name for name, _ in self.documents.most_common(_MAX_LICENSES))
        rows = [(_cell(name), self.documents[name], self.passages[name]) for name in shown]
        num_others = len(self.documents) - len(shown)
        if num_others:
            documents, passages = (counts.total() - sum(counts[name] for name in shown) for counts in (self.documents, self.passages))
            rows.append((f"{num_others:,} others", documents, passages))
        return rows


def _cell(text: str) -> str:
    """A text as it may stand in a cell of a Markdown table: sources call the strangest things a licence."""
    line = " ".join(text.split())
    return (line if len(line) <= _LICENSE_CHARACTERS else f"{line[:_LICENSE_CHARACTERS]}…").replace("|", "\\|")


def recipe_of(shards: Sequence[ShardRecord], others: Sequence[Manifest], deduplication: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The parts of the recipe that the shards were made by, by stage; `raw_corpus` by corpus. Local paths are cut to their last part.

    Args:
        others: further artifacts that the texts were made with (a synthesizer and what it learned from).
        deduplication: how duplicates were found; several ways are different recipes.

    Raises:
        ValueError: shards were made by different recipes or versions (of the code, of a synthesizer, of phrasings); the message names them.
    """
    if len(deduplication) > 1:
        raise ValueError("duplicate_documents: shards were cleaned by different recipes: materialize clean_corpus of all again")
    found: dict[str, dict[str, Any]] = {"raw_corpus": {}, **({"duplicate_documents": deduplication[0]} if deduplication else {})}
    made: dict[str, tuple[str, Any]] = {}
    for shard in shards:
        for stage, manifest in shard.stages.items():
            corpus = manifest.recipe.get("name", "") if stage == "raw_corpus" else ""
            own = manifest.recipe, manifest.code_version, {} if corpus else _made_with(manifest)
            first, others_own = made.setdefault(f"{stage} {corpus}", (shard.key, own))
            if own != others_own:
                raise ValueError(
                    f"{stage}: {first} and {shard.key} were made by different recipes or versions: materialize the older one again"
                )
            if stage == "raw_corpus":
                found[stage][corpus] = {name: value for name, value in manifest.recipe.items() if name != "name"}
            else:
                found[stage] = manifest.recipe
    found |= {manifest.asset: manifest.recipe for manifest in others if manifest.recipe}
    shown: dict[str, Any] = without_folders(found)
    return shown


def _made_with(manifest: Manifest) -> dict[str, str]:
    """Digests of what a shard was made with that all shards share: a model, phrasings, evaluation examples.

    Of `duplicate_documents` each shard has a list of its own.
    """
    return {item.asset: item.digest for item in manifest.inputs if item.partition == "all" and item.asset != "duplicate_documents"}


def without_folders(value: Any) -> Any:
    """The value, absolute local paths in it cut to their last part: where files lay on a machine is nobody's business."""
    match value:
        case dict():
            return {key: without_folders(item) for key, item in value.items()}
        case list() | tuple():
            return [without_folders(item) for item in value]
        case str() if value.startswith(("/", "file://")):
            return value.rstrip("/").rsplit("/", 1)[-1]
        case _:
            return value


def total(statistics: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of all whole numbers, also of those in mappings; measures that no sum makes sense of are left out."""
    sums: dict[str, Any] = {}
    for shard in statistics:
        for name, value in shard.items():
            if isinstance(value, dict):
                sums[name] = total([sums.get(name, {}), value])
            elif isinstance(value, int) and not isinstance(value, bool):
                sums[name] = sums.get(name, 0) + value
    return sums


def render_card(
    *,
    name: str,
    pair_set: str,
    shards: Sequence[ShardRecord],
    others: Sequence[Manifest],
    deduplication: Sequence[dict[str, Any]],
    left_out: Sequence[str],
    licenses: Licenses,
    raw: bool,
) -> str:
    """`README.md` of the dataset, as Markdown with YAML in front.

    Args:
        name: what the dataset is called.
        pair_set: whose texts these are.
        shards: what is in it.
        others: further artifacts that the pairs were made with.
        deduplication: how duplicates were found.
        left_out: shards of the corpora that are not in it.
        licenses: counts by licence.
        raw: whether the documents before augmentation are in it.

    Raises:
        ValueError: see `recipe_of`.
    """
    recipe = recipe_of(shards, others, deduplication)
    counts = {stage: total([shard.stages[stage].statistics for shard in shards]) for stage in shards[0].stages}
    writer = recipe["instruction_pairs"].get("writer", {"kind": "synthesizer", "model": "tuned by this recipe"})
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True)  # noqa: S701 (Markdown)
    return environment.get_template("dataset_card.md.j2").render(
        front=_yaml(_front(name, counts["augmented_corpus"]["num_rows"], recipe, licenses, raw)),
        name=name,
        pair_set=pair_set,
        writer=_yaml(writer),
        kind=writer["kind"],
        made_with=[*others, *_sources(shards)],
        recipe=_yaml(recipe),
        fraction=recipe["instruction_pairs"].get("fraction", 1.0),
        counts=counts,
        licenses=licenses,
        left_out=left_out,
        num_shards=len(shards),
        shards=shards[:_MAX_SHARDS],
        fields=FIELDS,
        raw=raw,
        decontaminated="evaluation_examples" in {i.asset for shard in shards for i in shard.augmented.inputs},
    )


def _front(name: str, num_texts: int, recipe: Mapping[str, Any], licenses: Licenses, raw: bool) -> dict[str, Any]:
    languages = ((recipe["clean_corpus"].get("language") or {}).get("keep")) or []
    configs = [{"config_name": "augmented", "default": True, "data_files": [{"split": "train", "path": "data/augmented/*.parquet"}]}]
    if raw:
        configs.append({"config_name": RAW_CONFIG, "data_files": [{"split": "train", "path": f"data/{RAW_CONFIG}/*.parquet"}]})
    return {
        "pretty_name": name,
        **({"language": list(languages)} if languages else {}),
        "license": sorted({_hub_license(found) for found in licenses.documents}),
        "task_categories": ["text-generation"],
        "tags": ["instruction-pretraining", "pre-training", "synthetic"],
        "size_categories": [next((size for limit, size in _SIZES if num_texts < limit), "100M<n<1B")],
        "configs": configs,
    }


def _hub_license(name: str) -> str:
    return _HUB_LICENSES.get("".join(sign for sign in name.lower() if sign.isalnum()), "unknown" if name == "unknown" else "other")


def _sources(shards: Sequence[ShardRecord]) -> Iterator[Any]:
    """What the texts were made with that is no artifact: hub revisions, phrasings and the like, each once."""
    seen = set()
    for shard in shards:
        for item in (*shard.pairs.inputs, *shard.augmented.inputs):
            if item.asset.startswith(SOURCE) and item not in seen:
                seen.add(item)
                yield item.model_copy(update={"asset": f"{SOURCE}{without_folders(item.asset.removeprefix(SOURCE))}"})


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip()
