"""What the training workers know for the model cards of their checkpoints: where data and base model are from."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from instpt_assets.augmentation.dataset_card import without_folders
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import SOURCE, Manifest, Spec
from instpt_assets.store.store import Artifact, Store
from instpt_assets.training.base_models import BaseModel
from instpt_assets.training.model_card import Card, CardComponent, CardCorpus

_NAMES = {"pretrained": "{0} {1}", "instruction_tuned": "{0} {1}, instruction-tuned", "synthesizer": "instruction synthesizer"}


def model_card(
    spec: Spec,
    inputs: Inputs,
    kind: Literal["pretrained", "instruction_tuned", "synthesizer"],
    *,
    base_model: BaseModel | None = None,
    mixture: Artifact | None = None,
) -> Card:
    """The card of the checkpoints that the spec asks for.

    Args:
        spec: asset, recipe and inputs.
        inputs: the artifacts among them.
        kind: what the model is.
        base_model: what it continues from.
        mixture: what it is pre-trained on.
    """
    manifests = list(_ancestors(inputs.values()))
    base = base_model and (base_model.pinned if base_model.commit else Path(base_model.name).name)
    components = {} if mixture is None else mixture.manifest.statistics["components"]
    languages = [(m.recipe.get("language") or {}).get("keep") or [] for m in manifests if m.asset == "clean_corpus"]
    return Card(
        name=_NAMES[kind].format(spec.asset.partition("/")[0], spec.partition),
        kind=kind,
        asset=spec.asset,
        partition=spec.partition,
        identity=spec.identity,
        recipe=without_folders(_recipe(spec, inputs)),
        base_model=base or _base_model_of(manifests),
        components=tuple(
            CardComponent(name=name, **{field: part[field] for field in ("num_documents", "num_tokens", "share", "repetition")})
            for name, part in components.items()
        ),
        corpora=tuple(dict.fromkeys(corpus for manifest in manifests for corpus in _corpora(manifest))),
        languages=tuple(sorted({language for kept in languages for language in kept})),
        made_from=tuple((_shown(item.asset), item.partition, item.digest) for item in spec.inputs),
    )


def _recipe(spec: Spec, inputs: Inputs) -> dict[str, Any]:
    """By stage: the part that the training follows, and those that its inputs were made by."""
    stages = {spec.asset.rpartition("/")[2]: spec.recipe}
    for asset, partition in inputs:
        stages.setdefault(asset.rpartition("/")[2], inputs[asset, partition].manifest.recipe)
    return {stage: recipe for stage, recipe in stages.items() if recipe}


def _ancestors(artifacts: Iterable[Artifact]) -> Iterator[Manifest]:
    """What the artifacts were made from, and they themselves; of a corpus's shards one stands for all, since a recipe treats them alike."""
    waiting = [(artifact.store, artifact.manifest) for artifact in artifacts]
    seen = set()
    while waiting:
        store, manifest = waiting.pop(0)
        yield manifest
        for item in manifest.inputs:
            kind = (item.asset, item.partition.partition("--")[0])
            if kind not in seen and not item.asset.startswith(SOURCE):
                seen.add(kind)
                waiting += _found(store, item.asset, item.partition, item.identity)


def _found(store: Store, asset: str, partition: str, identity: str) -> list[tuple[Store, Manifest]]:
    artifact = store.get(asset, partition, identity)
    return [] if artifact is None else [(store, artifact.manifest)]


def _corpora(manifest: Manifest) -> Iterator[CardCorpus]:
    recipe = manifest.recipe
    match manifest.asset:
        case "raw_corpus" if "source" in recipe:
            yield CardCorpus(name=recipe["name"], source=_shown(recipe["source"]), license=recipe.get("license"))
        case "tuning_collection":
            for name, source in recipe.get("sources", {}).items():
                yield CardCorpus(name=f"tuning/{name}", source=_shown(source["source"]))
        case "tokenized_instructions" if "general_instructions" in recipe:
            yield CardCorpus(name="general instructions", source=_shown(recipe["general_instructions"]["source"]))


def _base_model_of(manifests: Iterable[Manifest]) -> str | None:
    """The base model of the pre-trained checkpoint among them."""
    for manifest in manifests:
        model = manifest.recipe.get("pretraining", {}).get("model") if manifest.asset.endswith("/pretrained_checkpoint") else None
        if isinstance(model, str):
            url = next(i.asset.removeprefix(SOURCE) for i in manifest.inputs if i.asset.startswith(SOURCE))
            return url.removeprefix("hf://") if url.startswith("hf://") else Path(url).name
    return None


def _shown(asset: str) -> str:
    """A source's URL, or an asset's name; a local path is cut to its last part."""
    shown: str = without_folders(asset.removeprefix(SOURCE))
    return shown
