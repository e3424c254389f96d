"""What the training workers know for the model cards of their checkpoints: where data and base model are from."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from instpt_assets.augmentation.dataset_card import without_folders
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import SOURCE, Input, Manifest, Spec
from instpt_assets.store.store import Artifact, Store
from instpt_assets.training.base_models import BaseModel
from instpt_assets.training.model_card import Card, CardComponent, CardCorpus

_NAMES = {"pretrained": "{0} {1}", "instruction_tuned": "{0} {1}, instruction-tuned", "synthesizer": "instruction synthesizer"}

_MAX_LISTED = 50


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
        recipe=without_folders(_recipe(spec, manifests)),
        base_model=base or _base_model_of(manifests),
        components=tuple(
            CardComponent(name=name, **{field: part[field] for field in ("num_documents", "num_tokens", "share", "repetition")})
            for name, part in components.items()
        ),
        corpora=tuple(sorted(dict.fromkeys(corpus for manifest in manifests for corpus in _corpora(manifest)), key=_is_for_tuning)),
        languages=tuple(sorted({language for kept in languages for language in kept})),
        made_from=tuple((_shown(item.asset), item.partition, item.digest) for item in (*spec.inputs, *_drawn_from(mixture))),
    )


def _recipe(spec: Spec, manifests: Iterable[Manifest]) -> dict[str, Any]:
    """By asset: the part that the training follows, and those that all it comes from was made by."""
    parts = {spec.asset: spec.recipe}
    for manifest in manifests:
        asset, recipe = manifest.asset, manifest.recipe
        parts[asset if parts.get(asset, recipe) == recipe else f"{asset} of {manifest.partition.partition('--')[0]}"] = recipe
    return {asset: _shortened(recipe) for asset, recipe in parts.items() if recipe}


def _shortened(value: Any) -> Any:
    """Without the ends of long lists, such as those of all shards."""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        left_out = [f"and {len(value) - _MAX_LISTED} more"] if len(value) > _MAX_LISTED else []
        return [*map(_shortened, value[:_MAX_LISTED]), *left_out]
    return value


def _drawn_from(mixture: Artifact | None) -> Iterable[Input]:
    return () if mixture is None else mixture.manifest.inputs


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


def _is_for_tuning(corpus: CardCorpus) -> bool:
    return corpus.name.startswith("tuning/")


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
