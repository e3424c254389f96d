"""Model cards of checkpoints, as the hub reads them; and that a repeated training has the same digest, whatever is logged."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from instpt_assets.defs.previews import describe
from instpt_assets.recipe.training import Pretraining
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store, resolve, source_input
from instpt_assets.training.base_models import BaseModel
from instpt_assets.training.log import LogLine
from instpt_assets.training.model_card import Card, CardCorpus, write_cards
from instpt_assets.workers import pretrain
from instpt_assets.workers.cards import model_card
from instpt_assets_tests.training.small_store import BUDGET, SHAPE, SmallStore, small_store

CARD = Card(
    name="instruct seed-1",
    kind="pretrained",
    asset="instruct/pretrained_checkpoint",
    partition="seed-1",
    identity="0123456789abcdef0123",
    recipe={"pretraining": {"model": "org/base@" + "1" * 40, "sequence_length": 2048}},
    base_model="org/base@" + "1" * 40,
    corpora=(CardCorpus(name="papers", source="hf://datasets/org/papers/part-*/*.parquet", license="CC BY 4.0"),),
    languages=("en",),
    made_from=tuple((f"tokenized_raw_{number}", "all", "d" * 64) for number in range(60)),
)


def test_a_repeated_training_has_the_same_digest_though_its_logs_differ(tmp_path):
    small = small_store(Store(str(tmp_path / "store")), tmp_path)
    recipe = {"pretraining": Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET, checkpoint_steps=(4,)).hashed()}
    arguments = (
        pretrain,
        "vanilla/pretrained_checkpoint",
        ["vanilla/tokenized_mixture", "tokenizer"],
        {**recipe, "seed": "seed-0"},
        "seed-0",
    )
    first = small.train(*arguments)
    shutil.rmtree(first.root)
    artifact = small.train(*arguments)
    logs = [{name for name in made.names if name.startswith("logs/tensorboard/events")} for made in (first, artifact)]
    assert logs[0] and logs[1] and logs[0] != logs[1]
    assert first.manifest.digest == artifact.manifest.digest

    last, early = (ModelCard.load(artifact.file(f"{name}/README.md")) for name in ("checkpoint", "checkpoint-4"))
    assert last.data.library_name == "transformers" and "instruction-pretraining" in last.data.tags
    assert "pre-trained from scratch on 3,072 tokens" in last.text and "after step 4 of 6" not in last.text
    assert "**This is the state after step 4 of 6**" in early.text and "pre-trained from scratch on 2,048 tokens" in early.text
    mixture = small.made["vanilla/tokenized_mixture"].manifest
    assert f"| vanilla/tokenized_mixture | seed-0 | `{mixture.digest}` |" in last.text and first.manifest.identity in last.text
    documents = mixture.statistics["components"]["corpus"]["num_documents"]
    assert f"| corpus | {documents:,} | 3,072 | 100.0 % |" in last.text
    assert str(tmp_path) not in last.content

    shown = describe(artifact, reused=False)
    assert "training_plot" in shown and Path(shown["checkpoint"].value, "model.safetensors").exists()
    assert shown["model_card"].value.strip().startswith("# vanilla seed-0")
    figures = ["training_plot", "model_card", "final_loss", "steps", "tokens", "tokens_per_second", "training_seconds", "resumed_from_step"]
    assert [name for name in shown if name in figures] == figures


def test_the_hub_finds_base_model_data_sets_and_languages(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/config.json").write_text('{"architectures": ["MistralForCausalLM"]}')
    lines = [LogLine(step, 3.0 - step / 10, 1e-4, 1.0, 1000 * step, 900, 2.5 if step == 2 else None) for step in (1, 2, 3)]
    write_cards(CARD, lines, tmp_path, num_parameters=7_241_732_096)
    card = ModelCard.load(tmp_path / "checkpoint/README.md")
    assert (card.data.base_model, card.data.datasets, card.data.language) == ("org/base", ["org/papers"], ["en"])
    assert "of 7.24 billion parameters (MistralForCausalLM), pre-trained from org/base@1111" in card.text
    assert "| papers | hf://datasets/org/papers/part-*/*.parquet | CC BY 4.0 |" in card.text
    assert "| loss on held-out documents (step 2) | 2.5000 |" in card.text and "| tokens with loss | 2,700 |" in card.text
    assert "tokenized_raw_49" in card.text and "tokenized_raw_50" not in card.text and "and 10 more" in card.text


@pytest.fixture
def made(tmp_path: Path) -> SmallStore:
    """A pre-trained checkpoint with all that it was made from, of which nothing but the manifests matters here."""
    small = SmallStore(Store(str(tmp_path / "store")), tmp_path)

    def add(asset: str, inputs: list[str], recipe: dict[str, Any], partition: str, **statistics: Any) -> None:
        def fill(out: Path) -> dict[str, Any]:
            (out / "content").write_text(f"{asset}/{partition}")
            return statistics

        small.add(asset, inputs, fill, partition, recipe)

    for shard in ("papers--a", "papers--b"):
        raw = {"name": "papers", "source": "/data/of/mine/papers/*.jsonl", "license": "CC0", "documents": list(range(60))}
        add("raw_corpus", [], raw, shard)
        add("clean_corpus", ["raw_corpus"], {"language": {"keep": ["en", "de"]}}, shard)
        add("tokenized_raw", ["clean_corpus"], {}, shard)
    add("mix/tokenized_mixture", ["tokenized_raw"], {"token_budget": 5}, "seed-0", components={})
    return small


def test_a_card_names_each_corpus_once_with_its_licence_and_without_the_machines_folders(made):
    base = BaseModel("/models/of/mine/base-7b", None, "e" * 64, ())
    inputs = (*made.inputs(["mix/tokenized_mixture"]), source_input(base.url, base.digest))
    recipe = {"pretraining": {"model": base.pinned}}
    spec = Spec(asset="mix/pretrained_checkpoint", partition="seed-0", code_version=1, recipe=recipe, inputs=inputs)
    artifacts = resolve(made.store, inputs)
    mixture = artifacts["mix/tokenized_mixture", "seed-0"]
    card = model_card(spec, artifacts, "pretrained", base_model=base, mixture=mixture)
    assert card.corpora == (CardCorpus(name="papers", source="*.jsonl", license="CC0"),) and card.languages == ("de", "en")
    assert list(card.recipe) == ["mix/pretrained_checkpoint", "mix/tokenized_mixture", "clean_corpus", "raw_corpus"]
    assert card.recipe["clean_corpus"] == {"language": {"keep": ["en", "de"]}} and card.recipe["mix/pretrained_checkpoint"] == recipe
    assert card.recipe["raw_corpus"]["documents"] == [*range(50), "and 10 more"]
    (tokens,) = mixture.manifest.inputs
    assert ("tokenized_raw", tokens.partition, tokens.digest) in card.made_from
    assert card.base_model == "base-7b" and ("base-7b", "all", "e" * 64) in card.made_from
    assert (card.name, card.identity) == ("mix seed-0", spec.identity) and "mine" not in card.model_dump_json()

    # What is tuned from it has its base model too.
    checkpoint = find_or_make(made.store, spec, lambda spec, inputs, out: (out / "content").touch() or {}).artifact
    tuned = Spec(
        asset="mix/instruction_tuned_checkpoint", partition="seed-0", code_version=1, recipe={}, inputs=(checkpoint.manifest.as_input(),)
    )
    card = model_card(tuned, resolve(made.store, tuned.inputs), "instruction_tuned")
    assert (card.name, card.base_model, card.corpora[0].name) == ("mix seed-0, instruction-tuned", "base-7b", "papers")
