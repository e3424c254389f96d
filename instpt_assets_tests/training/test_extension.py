"""A finished training that is given a larger token budget goes on from its state, and ends as if it had had that budget from the start."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instpt_assets.mixture.index import BOUNDS, PIECE_DTYPE, PIECES, SOURCES
from instpt_assets.recipe.training import Optimization, Pretraining
from instpt_assets.store.sealed import SealedFolders, write_aside
from instpt_assets.store.store import Artifact, Store
from instpt_assets.store.sweeping import sweep
from instpt_assets.training.lineage import Lineage, lineage_key
from instpt_assets.training.log import read_log
from instpt_assets.workers import pretrain
from instpt_assets_tests.training.small_store import SHAPE, SmallStore, small_store

STEP = 256
WSD = {"schedule": "warmup_stable_decay", "decay_fraction": 0.25}


def optimization(steps: int, **changes: Any) -> Optimization:
    fields = {"token_budget": steps * STEP, "batch_tokens": STEP, "learning_rate": 0.003, "warmup_steps": 1}
    return Optimization(**{**fields, **changes})


def pretrained(small: SmallStore, recipe: Optimization, **changes: Any) -> Artifact:
    """The arm's mixture for the recipe, and the model trained on it."""
    small.mix(recipe)
    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=recipe, **changes)
    inputs = ["vanilla/tokenized_mixture", "tokenizer"]
    recipe_part = {"pretraining": pretraining.hashed(), "seed": "seed-0"}
    return small.train(pretrain, "vanilla/pretrained_checkpoint", inputs, recipe_part, "seed-0")


def files(artifact: Artifact) -> dict[str, str]:
    """Digest of each file of weights, and of the log."""
    return {file.name: file.sha256 for file in artifact.manifest.files if file.name.endswith(("safetensors", "log.jsonl"))}


# Without a decay the state after 12 steps lacks the checkpoint of the tenth.
@pytest.mark.parametrize(("schedule", "steps"), [(WSD, [6, 9]), ({"schedule": "constant"}, [8, 8])])
def test_larger_budgets_go_on_and_end_in_the_same_bytes(tmp_path: Path, schedule: dict[str, Any], steps: list[int]) -> None:
    small = small_store(Store(str(tmp_path / "store")), tmp_path)
    pretrained(small, optimization(8, **schedule), checkpoint_steps=(3,))
    longer = pretrained(small, optimization(12, extended_from=(8 * STEP,), **schedule), checkpoint_steps=(3,))
    longest = optimization(16, extended_from=(8 * STEP, 12 * STEP), **schedule)
    extended = pretrained(small, longest, checkpoint_steps=(3, 10))
    assert [artifact.manifest.statistics["extended_from_step"] for artifact in (longer, extended)] == steps
    fresh = small_store(Store(str(tmp_path / "other")), tmp_path)
    whole = pretrained(fresh, longest, checkpoint_steps=(3, 10))
    assert whole.manifest.statistics["extended_from_step"] == 0
    assert whole.manifest.statistics["not_extended"].startswith("no state of an earlier budget [2048, 3072] with the same model")
    assert files(extended) == files(whole) and len(files(whole)) == 4


def test_another_decay_goes_on_from_the_same_state(tmp_path: Path) -> None:
    small = small_store(Store(str(tmp_path / "store")), tmp_path)
    pretrained(small, optimization(8, **WSD))
    other = pretrained(small, optimization(8, **{**WSD, "decay_shape": "linear", "final_learning_rate_fraction": 0.0}))
    assert other.manifest.statistics["extended_from_step"] == 6


def test_a_killed_training_goes_on_from_the_state_that_it_kept_for_larger_budgets(tmp_path: Path) -> None:
    small = small_store(Store(str(tmp_path / "store")), tmp_path)
    first = pretrained(small, optimization(8, **WSD))
    shutil.rmtree(tmp_path / "store" / first.manifest.asset)
    again = pretrained(small, optimization(8, **WSD))
    assert (again.manifest.statistics["resumed_from_step"], again.manifest.statistics["extended_from_step"]) == (6, 0)
    assert files(again) == files(first)


def test_trainings_with_other_settings_or_another_start_have_nothing_in_common() -> None:
    made_of = {"seed": 0, "tokenizer": "digest"}
    key = lineage_key(optimization(8, **WSD), made_of)
    assert key == lineage_key(optimization(16, extended_from=(8 * STEP,), schedule="constant"), made_of)
    for changes in ({"beta2": 0.9}, {"learning_rate": 0.002}, {"warmup_steps": 2}, {"batch_tokens": 2 * STEP}, {"dtype": "float32"}):
        assert lineage_key(optimization(8, **WSD, **changes), made_of) != key
    assert lineage_key(optimization(8, **WSD), {**made_of, "seed": 1}) != key


def test_another_machine_goes_on_from_what_lies_on_s3(s3_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "one"))
    small = small_store(s3_store, tmp_path)
    pretrained(small, optimization(8, **WSD), checkpoint_steps=(3,))
    monkeypatch.setenv("INSTPT_CACHE", str(tmp_path / "two"))
    extended = pretrained(small, optimization(12, extended_from=(8 * STEP,), **WSD), checkpoint_steps=(3,))
    assert extended.manifest.statistics["extended_from_step"] == 6
    assert [line.step for line in read_log(extended.local())] == list(range(1, 13))
    assert not s3_store.fs.exists(s3_store.path("_progress"))


def test_a_cosine_begins_anew_and_says_why(tmp_path: Path) -> None:
    small = small_store(Store(str(tmp_path / "store")), tmp_path)
    pretrained(small, optimization(3))
    artifact = pretrained(small, optimization(4, extended_from=(3 * STEP,)))
    statistics = artifact.manifest.statistics
    assert (statistics["resumed_from_step"], statistics["extended_from_step"]) == (0, 0)
    assert statistics["not_extended"] == "schedule 'cosine' ends at the token budget: a larger one changes every step"
    assert not (tmp_path / "store/_cache").exists()


@pytest.fixture
def lineage(tmp_path: Path) -> Callable[..., Lineage]:
    """A lineage over an index of two pieces a sequence, four sequences a step."""

    def build(sources: list[str], changed: int | None = None, steps: int = 8) -> Lineage:
        folder = tmp_path / f"{sources}-{changed}-{steps}"
        folder.mkdir()
        pieces = np.zeros(steps * 4 * 2, dtype=PIECE_DTYPE)
        pieces["row"] = np.arange(len(pieces))
        pieces["count"] = 32
        names = ["a", "b"]
        pieces["source"] = [sources.index(names[row % 2]) for row in range(len(pieces))]
        if changed is not None:
            pieces["row"][changed] = 10_000
        np.save(folder / PIECES, pieces)
        np.save(folder / BOUNDS, np.arange(0, len(pieces) + 1, 2))
        index = {"sequence_length": 64, "packing": "concatenate", "document_attention": False}
        (folder / SOURCES).write_text(json.dumps({**index, "sources": [{"asset": "raw", "partition": name} for name in sources]}))
        digests = {("raw", name): f"digest of {name}" for name in sources}
        return Lineage(SealedFolders(tmp_path / "states"), optimization(steps, **WSD), folder, digests)

    return build


def test_a_state_is_known_by_the_data_up_to_it(lineage: Callable[..., Lineage]) -> None:
    first = lineage(["a", "b"])
    name = first.name(6)
    assert lineage(["b", "new", "a"], steps=12).holds(name)  # other numbers, and more sources
    assert lineage(["a", "b"], changed=48).holds(name)  # the first piece behind six steps
    assert not lineage(["a", "b"], changed=47).holds(name)
    assert not lineage(["a", "b"], steps=4).holds(name)  # its own decay begins earlier
    other = lineage(["a", "b"], steps=10)
    assert not Lineage(other.folders, other.optimization, other.mixture, {**other.source_digests, ("raw", "b"): "changed"}).holds(name)


def test_states_for_larger_budgets_are_swept_when_they_are_old(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    folders = SealedFolders(tmp_path / "store/_cache/training/lineage")
    for name in ("step-00000001-aa", "step-00000002-bb"):
        aside = write_aside(folders.folder)
        (aside / "weights").write_text("w")
        folders.seal(aside, name)
    old = folders.folder / "step-00000001-aa"
    for path in (*old.iterdir(), old):
        os.utime(path, (0, 0))
    assert [left.path for left in sweep(store, 7)] == [str(old)]
    assert folders.names("step-") == ["step-00000002-bb"]
