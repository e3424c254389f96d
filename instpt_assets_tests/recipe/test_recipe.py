"""Recipes and executions: what is valid, and what the errors say."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml

from instpt_assets.recipe.base import LATER, Part
from instpt_assets.recipe.loading import ConfigurationError, bundled, load_execution, load_recipe
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.synthesis import PairSet


@pytest.mark.parametrize("name", bundled("recipes"))
def test_bundled_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.description


@pytest.mark.parametrize("name", bundled("executions"))
def test_bundled_executions_are_valid(name: str) -> None:
    assert load_execution(name).device in ("cpu", "cuda")


def test_all_arms_of_the_paper_train_on_the_same_number_of_tokens() -> None:
    recipe = load_recipe("general_500m")
    assert recipe.pretraining.optimization.token_budget == 100_000_000_000
    assert set(recipe.arms) == {"vanilla", "mix", "instruct"}


def demo_with(path: Path, **changes: Any) -> Path:
    recipe = yaml.safe_load((Path(load_recipe.__globals__["_HERE"]) / "recipes" / "demo.yaml").read_text())
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        node = recipe
        for parent in parents:
            node = node[parent]
        node[last] = value
    file = path / "mine.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrainig": {}}, "pretrainig: unknown field"),
        ({"pretraining__lora": {"rank": 8}}, "pretraining: lora adapts a base model, but model is a shape"),
        ({"synthesizer__lora": {"rank": 8}}, "synthesizer: lora adapts a base model, but model is a shape"),
        (
            {"instruction_tuning__components": ["general"]},
            "instruction_tuning.components: 'general' needs the section general_instructions",
        ),
        (
            {"instruction_tuning__checkpoint_steps": [16]},
            "instruction_tuning: checkpoint_steps [16] must ascend and end before the last step, 16",
        ),
        ({"cleaning__min_charaters": 3}, "cleaning.min_charaters: unknown field"),
        (
            {"arms__instruct": {"mixture": [{"component": "corpus", "pair_set": "synthesised"}]}},
            "arms.instruct.mixture.0.pair_set: unknown 'synthesised'",
        ),
        ({"tokenizer__pinned_shards": ["nowhere--0000"]}, "tokenizer.pinned_shards: 'nowhere--0000' names no corpus"),
        (
            {"arms__mix": {"mixture": [{"component": "corpus", "ratio": 0.5}, {"component": "tuning", "ratio": 0.4}]}},
            "ratios add up to 0.9, not 1",
        ),
        ({"num_seeds": "two"}, "num_seeds: Input should be a valid integer"),
        ({"pretraining__optimization__learning_rate": -1.0}, "pretraining.optimization.learning_rate: Input should be greater than 0"),
        ({"pretraining__sequence_length": 100}, "is no multiple of sequence_length"),
        ({"pretraining__checkpoint_steps": [20, 10]}, "checkpoint_steps [20, 10] must ascend and end before the last step"),
        ({"pretraining__checkpoint_steps": [1_000_000]}, "checkpoint_steps [1000000] must ascend and end before the last step"),
        ({"pretraining__checkpoint_steps": [0]}, "pretraining.checkpoint_steps.0: Input should be greater than 0"),
        ({"synthesizer": None}, "pair_sets 'synthesized': the section synthesizer is missing, which tunes their writer"),
        ({"evaluation__held_out": "numpy"}, "evaluation.held_out: source 'numpy': write pydoc://<set>?include=…"),
        (
            {"evaluation__held_out": "pydoc://numpy?includes=numpy.ma"},
            "evaluation.held_out: source 'pydoc://numpy?includes=numpy.ma': unknown",
        ),
        ({"evaluation__held_out": "pydoc://nunpy"}, "evaluation.held_out: pydoc://nunpy: no such documentation here; sets: topics, stdlib"),
        ({"corpora__numpy": {"source": "pydoc://numpy?shards=0"}}, "corpora.numpy.source: source 'pydoc://numpy?shards=0': shards is '0'"),
        (
            {"tuning__sources__pandas": {"source": "pydoc://panda"}},
            "tuning.sources.pandas.source: pydoc://panda: no such documentation here",
        ),
        (
            {"corpora__mine": {"source": "s3://me:hidden@bucket/a.jsonl"}},
            "corpora.mine.source: the URL holds a name, password or signature",
        ),
        (
            {"tuning__sources__mine": {"source": "https://h.org/a.jsonl?b=c&token=hidden"}},
            "tuning.sources.mine.source: the URL holds a name",
        ),
        (
            {"decontamination": {"sources": {"mine": {"source": "pydoc://topics"}}}},
            "decontamination.sources.mine: source: documentation holds",
        ),
        ({"decontamination": {"sources": {"mine": {"source": "a", "format": "txt"}}}}, "decontamination.sources.mine: format: txt has no"),
        ({"evaluation__harness_tasks": [{"task": "piqa"}, {"task": "piqa"}]}, "evaluation: harness_tasks name a task twice: piqa"),
        ({"synthesizer__model__num_layers": 1}, "synthesizer: model.num_layers: a wired start needs two layers"),
        ({"synthesizer__model__num_heads": 2}, "synthesizer: model.num_heads: a wired start needs a multiple of 3"),
        ({"synthesizer__model__rope_theta": 1_000.0}, "synthesizer: model.rope_theta: heads of "),
        ({"synthesizer__model__num_kv_heads": 1}, "synthesizer: model.num_kv_heads: a wired start needs as many as num_heads"),
        ({"synthesizer__model__tie_word_embeddings": False}, "synthesizer: model.tie_word_embeddings: a wired start needs true"),
        ({"synthesizer__curriculum__rote_tokens": 20_000_000}, "leaves nothing for the tuning data behind the curriculum's"),
        ({"synthesizer__sequence_length": 2048}, "synthesizer.sequence_length 2048 exceeds the model's max_position_embeddings"),
        (
            {"pair_sets__synthesized__max_model_len": 4096},
            "pair_sets.synthesized.max_model_len 4096 exceeds the synthesizer's max_position_embeddings",
        ),
        ({"tokenizer__pinned_shards": ["numpy--0000", "numpy--0000"]}, "tokenizer.pinned_shards: 'numpy--0000' stands there twice"),
        ({"arms__vanilla__shards": []}, "arms.vanilla.shards: Tuple should have at least 1 item"),
        ({"name": "Not a name"}, "name: 'Not a name' is no name: write lower case letters, digits and underscores"),
        ({"decontamination": {"sources": {"a b": {"source": "a"}}}}, "decontamination.sources.a b: 'a b' is no name: write"),
        ({"cleaning__mask": {"email": "<EMAIL>"}}, "cleaning.mask.email: '<EMAIL>' cannot stand for an address: write printable ASCII"),
        ({"cleaning__mask": {"ipv4": "IP"}}, "cleaning.mask.ipv4: 'IP' cannot stand for an address"),
        ({"cleaning__quality": {"stop_words": ["of the"]}}, "cleaning.quality.stop_words.0: 'of the' is no word"),
        ({"pretraining__model": {"hidden_size": 8}}, "\n  pretraining.model.num_layers: Field required"),
        ({"synthesizer__model__num_leyers": 3}, "\n  synthesizer.model.num_leyers: unknown field"),
        ({"pretraining__model": 7}, "\n  pretraining.model: give a shape (hidden_size, num_layers, …), or the name"),
    ],
)
def test_a_wrong_recipe_says_which_field_and_why(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_recipe(str(demo_with(tmp_path, **changes)))
    assert message in str(error.value) and "hidden@" not in str(error.value) and "=hidden" not in str(error.value)
    assert "Traceback" not in str(error.value) and "pydantic" not in str(error.value)
    assert "[" not in str(error.value).split(message)[0] and ".str:" not in str(error.value)


def test_a_list_with_a_wrong_item_is_not_called_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_recipe(str(demo_with(tmp_path, arms__vanilla__mixture=[{"component": "corpus", "weight": 1}])))
    assert str(error.value).splitlines()[1:] == ["  arms.vanilla.mixture.0.weight: unknown field"]


def test_a_field_that_came_later_is_hashed_where_it_says_something(tmp_path: Path) -> None:
    without = load_recipe("demo").pretraining.hashed()
    some = load_recipe(str(demo_with(tmp_path, pretraining__checkpoint_steps=[1, 2]))).pretraining.hashed()
    assert some == {**without, "checkpoint_steps": [1, 2]}
    none = load_recipe(str(demo_with(tmp_path, pretraining__checkpoint_steps=[]))).pretraining.hashed()
    assert none == without and "checkpoint_steps" not in none


def test_a_later_field_within_another_part_is_left_out_too() -> None:
    class Inner(Part):
        old: int = 1
        new: Annotated[int, LATER] = 2

    class Outer(Part):
        inner: Inner = Inner()
        several: tuple[Inner, ...] = (Inner(), Inner(new=3))

    assert Outer().hashed() == {"inner": {"old": 1}, "several": [{"old": 1}, {"old": 1, "new": 3}]}
    assert Outer().hashed(without={"inner": {"old"}, "several": {"__all__": {"new"}}}) == {
        "inner": {},
        "several": [{"old": 1}, {"old": 1}],
    }


def test_without_a_wired_start_any_shape_will_do(tmp_path: Path) -> None:
    changes = {"synthesizer__model__num_layers": 1, "synthesizer__curriculum__wired_start": False}
    assert load_recipe(str(demo_with(tmp_path, **changes))).synthesizer is not None


def test_a_recipe_that_does_not_exist_names_the_bundled_ones() -> None:
    with pytest.raises(ConfigurationError, match="neither a file nor one of the bundled ones: .*demo"):
        load_recipe("dmeo")


def test_broken_yaml_is_one_message(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("name: [1, 2")
    with pytest.raises(ConfigurationError, match="not readable as YAML"):
        load_recipe(str(file))


OWN_WRITERS = {
    "released": {"kind": "synthesizer", "model": "org/synthesizer@main"},
    "chat": {"kind": "chat", "model": "org/chat"},
    "served": {"kind": "server", "model": "chat"},
    "imported": {"kind": "imported"},
}


def test_pair_sets_with_writers_of_their_own_need_no_synthesizer(tmp_path: Path) -> None:
    pair_sets = {name: {"writer": writer} for name, writer in OWN_WRITERS.items()}
    changes = {"synthesizer": None, "tuning": None, "instruction_tuning": None, "arms": {"vanilla": {"mixture": [{"component": "corpus"}]}}}
    recipe = load_recipe(str(demo_with(tmp_path, **changes, pair_sets=pair_sets)))
    assert set(recipe.pair_sets) == set(OWN_WRITERS) and not any(part.tuned_here for part in recipe.pair_sets.values())
    with pytest.raises(ConfigurationError, match="pair_sets 'tuned': the section synthesizer is missing"):
        load_recipe(str(demo_with(tmp_path, **changes, pair_sets={**pair_sets, "tuned": {"writer": {"kind": "synthesizer"}}})))


def test_the_window_of_a_writer_of_its_own_is_not_the_tuned_synthesizers(tmp_path: Path) -> None:
    chat = {"writer": OWN_WRITERS["chat"], "max_model_len": 8192}
    assert load_recipe(str(demo_with(tmp_path, pair_sets__chat=chat))).pair_sets["chat"].max_model_len == 8192


def test_default_passages_let_all_shots_fit_the_window() -> None:
    pair_set = PairSet(shots=3)
    assert pair_set.shots * (pair_set.passage_tokens + pair_set.max_new_tokens) <= pair_set.max_model_len


def test_a_window_that_cannot_hold_a_shot_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot hold passages"):
        PairSet(shots=2, max_model_len=512, max_new_tokens=400)


def test_a_recipe_extends_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: demo\nname: mine\ncorpora:\n  notes: {source: notes/*.jsonl}\n"
        "tokenizer: {pinned_shards: [notes--a]}\nsynthesizer: {pinned_shards: [notes--a]}\n"
    )
    mine, demo = load_recipe(str(file)), load_recipe("demo")
    assert list(mine.corpora) == ["notes"]
    assert mine.tokenizer.vocab_size == demo.tokenizer.vocab_size and mine.tokenizer.pinned_shards == ("notes--a",)
    assert mine.arms == demo.arms


def test_what_extends_changes_single_fields_at_any_depth(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: demo\nname: mine\n"
        "synthesizer: {optimization: {learning_rate: 0.5}, curriculum: null}\n"
        "tuning: {sources: {topics: {source: 'pydoc://topics'}}}\n"
        "arms: {only: {mixture: [{component: corpus}]}}\n"
        "pretraining: {model: org/base}\n"
        "tokenizer: {model: org/base, vocab_size: null, pinned_shards: []}\n"
    )
    mine, demo = load_recipe(str(file)), load_recipe("demo")
    assert mine.synthesizer and demo.synthesizer and mine.tuning and demo.tuning
    assert mine.synthesizer.optimization == demo.synthesizer.optimization.model_copy(update={"learning_rate": 0.5})
    assert mine.synthesizer.curriculum is None and mine.synthesizer.model == demo.synthesizer.model
    assert list(mine.tuning.sources) == ["topics"] and mine.tuning.held_out_fraction == demo.tuning.held_out_fraction
    assert list(mine.arms) == ["only"]
    assert mine.pretraining == demo.pretraining.model_copy(update={"model": "org/base"})


def test_a_recipe_that_extends_itself_is_told_so(tmp_path: Path) -> None:
    file, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    file.write_text(f"extends: {other}\nname: mine\n")
    other.write_text(f"extends: {file}\nname: other\n")
    with pytest.raises(ConfigurationError, match="extends: the files extend each other in a circle .*mine.yaml -> .*other.yaml -> .*mine"):
        load_recipe(str(file))


def test_a_wrong_field_beside_extends_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\nname: mine\nlayouts: {dialogue: 0.1}\n")
    with pytest.raises(ConfigurationError, match="layouts.dialogue: unknown field"):
        load_recipe(str(file))


def test_a_recipe_that_extends_another_needs_a_name_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: demo\n")
    with pytest.raises(ConfigurationError, match="needs a name of its own"):
        load_recipe(str(file))


EVERY_SECTION: dict[str, Any] = {
    "name": "all",
    "corpora": {"topics": {"source": "pydoc://topics"}},
    "tuning": {"sources": {"topics": {"source": "pydoc://topics"}}},
    "synthesizer": {
        "model": {
            "hidden_size": 96,
            "num_layers": 2,
            "num_heads": 3,
            "intermediate_size": 8,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
        },
        "vocab_size": 512,
        "pinned_shards": ["topics--0000"],
        "curriculum": {},
        "optimization": {"token_budget": 4_096_000, "batch_tokens": 4096, "learning_rate": 0.001},
        "sequence_length": 2048,
    },
    "pair_sets": {"synthesized": {"max_model_len": 2048}},
    "general_instructions": {"source": "general.jsonl"},
    "tokenizer": {"model": "org/base"},
    "pretraining": {"model": "org/base", "optimization": {"token_budget": 8192, "batch_tokens": 4096, "learning_rate": 0.001}},
    "instruction_tuning": {"optimization": {"token_budget": 8192, "batch_tokens": 4096, "learning_rate": 0.001}},
    "arms": {"vanilla": {"mixture": [{"component": "corpus"}]}},
    "evaluation": {"harness_tasks": [{"task": "piqa"}]},
}


GOLDEN = {
    "corpora": "fe2c3f3ad29b",
    "cleaning": "5e37ee7720a5",
    "deduplication": "362d8809b635",
    "tuning": "48e517992120",
    "synthesizer": "543b479fc5f1",
    "pair_sets": "3fdf28948002",
    "layouts": "0a814711a41c",
    "general_instructions": "85d47122a775",
    "tokenizer": "fa9b7c2fee70",
    "pretraining": "62138e790b15",
    "instruction_tuning": "d3a2607e67cc",
    "arms": "b75a9c499440",
    "evaluation": "8c15df937e00",
}


def test_a_new_release_hashes_a_recipe_as_the_last_one_did() -> None:
    """Golden: a new field changes what it is in, and all that was made with it, unless it is marked `LATER`."""
    recipe = Recipe.model_validate_json(json.dumps(EVERY_SECTION))
    found = {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
        for name, value in recipe.hashed().items()
        if name not in ("name", "description", "num_seeds")
    }
    assert found == GOLDEN, f"if that is meant, write down: {found}"


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    with pytest.raises(ConfigurationError, match=r"empty\.yaml: the file is empty$"):
        load_recipe(str(tmp_path / "empty.yaml"))
