"""The bundled recipes' mixtures, made from small real tokens under budgets scaled to them: the paper's arms and ablations."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import zstandard

from instpt_assets.augmentation.augment import augment
from instpt_assets.corpus.tables import DOCUMENTS, TableWriter
from instpt_assets.mixture.instructions import tokenize_instructions
from instpt_assets.mixture.mix import build_mixture
from instpt_assets.mixture.row_index import folder_indices
from instpt_assets.mixture.tokenized import tokenize_augmented, tokenize_raw
from instpt_assets.mixture.tokenizer import train_tokenizer
from instpt_assets.recipe.arms import Arm
from instpt_assets.recipe.loading import load_recipe
from instpt_assets.recipe.recipe import GeneralInstructions, Recipe
from instpt_assets.recipe.writers import RuleBasedWriter
from instpt_assets.synthesis.rule_based import write_rule_based_pairs

NUM_DOCUMENTS = 40
TEXTS = {"biomedicine": "biomedicine", "finance": "finance", "general": "general", "demo": "general"}
PAIR = pl.Struct({"instruction": pl.String, "response": pl.String, "options": pl.List(pl.String), "reasoning": pl.String})


@dataclass(frozen=True)
class Bundled:
    """A bundled recipe, and the tokens of a small corpus as its stages make them."""

    recipe: Recipe
    folders: dict[tuple[str, str], Path]
    num_tokens: int
    """Of the corpus."""

    def mix(self, arm: str, out: Path) -> dict[str, Any]:
        """The arm's mixture; the budget is about one pass over the corpus, in more than ten steps."""
        mixture = self.recipe.arms[arm].mixture
        length = self.recipe.pretraining.sequence_length
        batch = max(length, self.num_tokens // 15 // length * length)
        return build_mixture(
            mixture, folder_indices(self.folders), seed=0, token_budget=self.num_tokens, batch_tokens=batch, sequence_length=length, out=out
        )


def records(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


FROM_SCRATCH = ["general_500m", "general_1_3b"]
CONTINUAL = ["biomedicine_llama3_8b", "finance_llama3_8b"]


@pytest.fixture(scope="module", params=[*FROM_SCRATCH, *CONTINUAL, "demo"])
def bundled(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    recipe, folder = load_recipe(request.param), tmp_path_factory.mktemp(request.param)
    corpus = shared_data / "corpora" / TEXTS[request.param.split("_")[0]]
    texts = [record["text"][:4000] for record in islice(records(corpus), NUM_DOCUMENTS)]
    with TableWriter(folder, "clean.parquet", DOCUMENTS) as writer:
        for number, text in enumerate(texts):
            writer.write({"document_id": f"c--0/{number:03}", "text": text, "source": "", "metadata": "{}"})
    clean = [folder / "clean.parquet"]
    train_tokenizer(texts[:20], 600, out=folder)
    folders = {("tokenized_raw", "c--0"): folder / "raw"}
    num_tokens = tokenize_raw(clean, tokenizer=folder / "tokenizer", out=folder / "raw")["num_tokens"]
    for name, pair_set in recipe.pair_sets.items():
        # Rules stand in for the synthesizer; what is chosen, and how many passages a text holds, is the recipe's.
        by_rules = pair_set.model_copy(update={"writer": RuleBasedWriter(kind="rule_based")})
        for stage in ("pairs", "augmented"):
            (folder / name / stage).mkdir(parents=True)
        write_rule_based_pairs(clean, by_rules, out=folder / name / "pairs")
        augment([folder / name / "pairs/data-00000.parquet"], clean, recipe.layouts, pair_set=name, out=folder / name / "augmented")
        folders[f"{name}/tokenized_augmented", "c--0"] = folder / name / "tokens"
        tokenize_augmented([folder / name / "augmented/data-00000.parquet"], tokenizer=folder / "tokenizer", out=folder / name / "tokens")
    _collect(shared_data, folder / "tuning.parquet")
    general = shared_data / "general-instructions" / "flan-cot.jsonl.zst"
    folders["tokenized_instructions", "all"] = folder / "instructions"
    tokenize_instructions(
        collection_tables=[folder / "tuning.parquet"],
        general=GeneralInstructions(source=str(general), max_examples=400),
        tokenizer=folder / "tokenizer",
        layouts=recipe.layouts,
        out=folder / "instructions",
    )
    return Bundled(recipe, folders, num_tokens)


def _collect(shared_data: Path, out: Path) -> None:
    """A tuning collection of four real contexts: about a hundredth of the budgets, passed over four times."""
    rows = []
    for record in islice(records(shared_data / "tuning"), 4):
        pairs = [{"instruction": p["question"], "response": p["answer"], "options": [], "reasoning": None} for p in record["pairs"][:3]]
        rows.append(
            {
                "example_id": record["id"],
                "dataset": "d",
                "split": "train",
                "context": record["context"][:600],
                "pairs": pairs,
                "license": "",
            }
        )
    pl.DataFrame(rows, schema_overrides={"pairs": pl.List(PAIR)}).write_parquet(out)


def test_all_arms_train_on_equally_many_tokens_and_hold_each_document_once(bundled: Bundled, tmp_path: Path) -> None:
    trained = set()
    for arm, part in bundled.recipe.arms.items():
        statistics = bundled.mix(arm, tmp_path / arm)
        trained.add(statistics["num_tokens"])
        check_amounts(part, statistics)
        raw, augmented = documents(tmp_path / arm, bundled.folders)
        assert not raw & augmented
        assert bool(raw or augmented) == (arm != "tuning_only")
    assert len(trained) == 1


def check_amounts(arm: Arm, statistics: dict[str, Any]) -> None:
    """What the recipe says of each component holds to within a document."""
    for component in arm.mixture:
        part = statistics["components"][component.label]
        document = part["available_tokens"] / part["available_documents"] * 4
        if component.ratio is not None:
            assert abs(part["num_tokens"] - component.ratio * statistics["num_tokens"]) <= document
        if component.repetition is not None:
            assert part["repetition"] == component.repetition


def documents(out: Path, folders: dict[tuple[str, str], Path]) -> tuple[set[str], set[str]]:
    """The documents of the corpus that were drawn raw, and those of which something was drawn in an augmented text."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for number, source in enumerate(json.loads((out / "sources.json").read_text())["sources"]):
        pieces = np.load(out / "pieces.npy")
        rows = np.unique(pieces["row"][pieces["source"] == number])
        names = pl.read_parquet(folders[source["asset"], source["partition"]] / "data-00000.parquet")["document_ids"]
        found[source["asset"] == "tokenized_raw"].update(names.gather(rows).explode().drop_nulls())
    return found[True], found[False]


@pytest.mark.parametrize("bundled", FROM_SCRATCH, indirect=True)
def test_from_scratch_a_fifth_is_augmented_and_the_tuning_data_is_passed_over_four_times(bundled: Bundled, tmp_path: Path) -> None:
    assert list(bundled.recipe.arms) == ["vanilla", "mix", "instruct"]
    vanilla, mix, instruct = (bundled.mix(arm, tmp_path / arm)["components"] for arm in bundled.recipe.arms)
    assert list(vanilla) == ["corpus"]
    assert vanilla["corpus"]["augmented_documents"] == mix["corpus"]["augmented_documents"] == 0
    assert 0.05 < instruct["corpus (synthesized)"]["augmented_documents"] / NUM_DOCUMENTS < 0.35
    assert mix["tuning"]["repetition"] == instruct["tuning"]["repetition"] == 4


@pytest.mark.parametrize("bundled", CONTINUAL, indirect=True)
def test_continual_arms_are_half_general_instructions_and_the_ablations_are_there(bundled: Bundled, tmp_path: Path) -> None:
    others = {}
    for arm in bundled.recipe.arms:
        components = bundled.mix(arm, tmp_path / arm)["components"]
        assert components["general"]["share"] == pytest.approx(0.5, abs=0.01)
        (others[arm],) = (label for label in components if label != "general")
        if "(" in others[arm]:  # all documents are augmented
            assert components[others[arm]]["augmented_documents"] == NUM_DOCUMENTS
    assert others == {
        "vanilla": "corpus",
        "instruct": "corpus (synthesized)",
        "one_shot_pairs": "corpus (one_shot)",
        "rule_based_pairs": "corpus (rule_based)",
        "tuning_only": "tuning",
    }
    shots = {name: pair_set.shots for name, pair_set in bundled.recipe.pair_sets.items()}
    assert shots == {"synthesized": 3, "one_shot": 1, "rule_based": 3}
