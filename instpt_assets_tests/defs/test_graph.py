"""Which assets, jobs and automation a recipe has, and that a wrong recipe says so in one message."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from instpt_assets.defs.build import build_definitions
from instpt_assets.defs.plan import CODE_VERSIONS
from instpt_assets.defs.project import Project
from instpt_assets.recipe.loading import bundled, load_execution, load_recipe
from instpt_assets.recipe.recipe import RESERVED

# Asset key; group; partitions; upstream assets, on the same partition or, marked, on all (*) or pinned (!) ones.
CORPUS = """
raw_corpus                                corpus       shards
document_signatures                       corpus       shards  raw_corpus
duplicate_documents                       corpus       -       document_signatures*
clean_corpus                              corpus       shards  raw_corpus duplicate_documents
tokenizer                                 tokens       -       clean_corpus!
tokenized_raw                             tokens       shards  clean_corpus tokenizer
"""
SYNTHESIS = """
tuning_collection                         synthesizer  -
instruction_synthesizer                   synthesizer  -       tuning_collection clean_corpus!
synthesizer_quality                       synthesizer  -       tuning_collection instruction_synthesizer
tokenized_instructions                    tokens       -       tokenizer tuning_collection
synthesized/instruction_pairs             synthesized  shards  clean_corpus instruction_synthesizer
synthesized/augmented_corpus              synthesized  shards  synthesized/instruction_pairs clean_corpus
synthesized/corpus_quality                synthesized  -       synthesized/instruction_pairs* synthesized/augmented_corpus*
synthesized/tokenized_augmented           tokens       shards  synthesized/augmented_corpus tokenizer
"""
ARM = """
{arm}/tokenized_mixture                   {arm}        seeds   {components}
{arm}/pretrained_checkpoint               {arm}        seeds   {arm}/tokenized_mixture tokenizer
{arm}/eval_scores                         {arm}        seeds   {arm}/pretrained_checkpoint
"""
TUNED_ARM = """
{arm}/instruction_tuned_checkpoint        {arm}        seeds   {arm}/pretrained_checkpoint tokenized_instructions tokenizer
{arm}/instruction_tuned_eval_scores       {arm}        seeds   {arm}/instruction_tuned_checkpoint
"""
COMPONENTS = {
    "vanilla": "tokenized_raw*",
    "mix": "tokenized_raw* tokenized_instructions",
    "instruct": "tokenized_raw* synthesized/tokenized_augmented* tokenized_instructions",
}
RUN_MODELS = {
    "instruction_synthesizer",
    "synthesizer_quality",
    "instruction_pairs",
    "pretrained_checkpoint",
    "instruction_tuned_checkpoint",
    "eval_scores",
    "instruction_tuned_eval_scores",
}
KINDS = {
    **dict.fromkeys(CODE_VERSIONS, "polars"),
    **dict.fromkeys(["tokenized_raw", "tokenized_augmented", "tokenized_instructions", "tokenized_mixture"], "numpy"),
    **dict.fromkeys(["instruction_synthesizer", "synthesizer_quality", "pretrained_checkpoint", "instruction_tuned_checkpoint"], "pytorch"),
    **dict.fromkeys(["tokenizer", "eval_scores", "instruction_tuned_eval_scores"], "huggingface"),
    "instruction_pairs": "vllm",
}


def definitions(recipe: str | Path, store: Path) -> dg.Definitions:
    return build_definitions(Project(load_recipe(str(recipe)), load_execution("cpu"), str(store)))


def rows(text: str) -> dict[str, tuple[str, str, set[str]]]:
    return {key: (group, partitions, set(deps)) for key, group, partitions, *deps in map(str.split, text.strip().splitlines())}


def structure(defined: dg.Definitions) -> dict[str, tuple[str, str, set[str]]]:
    graph = defined.resolve_asset_graph()
    found = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        marks = {dg.AllPartitionMapping: "*", dg.SpecificPartitionsPartitionMapping: "!"}
        deps = {parent.to_user_string() + marks.get(type(node.partition_mappings.get(parent)), "") for parent in node.parent_keys}
        kind = {dg.DynamicPartitionsDefinition: "shards", dg.StaticPartitionsDefinition: "seeds"}.get(type(node.partitions_def), "-")
        found[key.to_user_string()] = (node.group_name, kind, deps)
    return found


def write_recipe(path: Path, **content: object) -> Path:
    path.write_text(yaml.safe_dump({"extends": "demo", "name": "mine", **content}))
    return path


def test_the_demo_graph_is_the_designed_one(tmp_path: Path) -> None:
    arms = [rows((ARM + TUNED_ARM).format(arm=arm, components=components).replace("\n\n", "\n")) for arm, components in COMPONENTS.items()]
    report = {f"{arm}/{scores}*" for arm in COMPONENTS for scores in ("eval_scores", "instruction_tuned_eval_scores")}
    expected = rows(CORPUS) | rows(SYNTHESIS) | arms[0] | arms[1] | arms[2] | {"comparison_report": ("comparison", "-", report)}
    assert structure(definitions("demo", tmp_path)) == expected


def test_every_asset_says_what_it_is(tmp_path: Path) -> None:
    graph = definitions("demo", tmp_path).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node, stage = graph.get(key), key.path[-1]
        assert node.description and len(node.description) > 20, key
        assert node.owners == ["team:models" if stage in RUN_MODELS | {"comparison_report"} else "team:data"], key
        assert node.kinds == {KINDS[stage]}, key
        assert node.code_version == str(CODE_VERSIONS[stage]), key
        assert node.pools == ({"gpu"} if stage in RUN_MODELS else set()), key
        if node.is_partitioned:
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), key


def test_pins_are_the_recipes_and_seeds_are_its_number(tmp_path: Path) -> None:
    graph = definitions("demo", tmp_path).resolve_asset_graph()
    recipe = load_recipe("demo")
    clean = dg.AssetKey("clean_corpus")
    for asset, pins in (("tokenizer", recipe.tokenizer.pinned_shards), ("instruction_synthesizer", recipe.synthesizer.pinned_shards)):
        assert graph.get(dg.AssetKey(asset)).partition_mappings[clean] == dg.SpecificPartitionsPartitionMapping(list(pins))
    assert graph.get(dg.AssetKey(["mix", "eval_scores"])).partitions_def.get_partition_keys() == ["seed-0", "seed-1"]


def test_a_pinned_arm_depends_on_its_shards_alone(tmp_path: Path) -> None:
    arm = {"mixture": [{"component": "corpus", "pair_set": "synthesized"}], "shards": ["numpy--0000"]}
    arms = {"some": arm, "all": {**arm, "shards": None}}
    found = structure(definitions(write_recipe(tmp_path / "pinned.yaml", arms=arms), tmp_path / "store"))
    assert found["some/tokenized_mixture"][2] == {"tokenized_raw!", "synthesized/tokenized_augmented!"}
    assert found["all/tokenized_mixture"][2] == {"tokenized_raw*", "synthesized/tokenized_augmented*"}


def test_what_is_compared_with_evaluation_examples_depends_on_them_where_the_recipe_says_so(tmp_path: Path) -> None:
    found = structure(definitions(write_recipe(tmp_path / "compared.yaml", decontamination={}), tmp_path / "store"))
    compared = {key for key, (_, _, dependencies) in found.items() if "evaluation_examples" in dependencies}
    assert compared == {"clean_corpus", "synthesized/augmented_corpus", "tuning_collection"}
    assert "evaluation_examples" not in structure(definitions("demo", tmp_path / "demo"))


def test_names_that_an_arm_cannot_have_are_those_of_assets_and_groups(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    found = structure(definitions(write_recipe(tmp_path / "all.yaml", decontamination={}), tmp_path / "store"))
    keys = {key.split("/")[0] for key in found} | {group for group, _, _ in found.values()}
    assert keys - set(recipe.arms) - set(recipe.pair_sets) == RESERVED


@pytest.mark.parametrize("recipe", bundled())
def test_every_bundled_recipe_has_loadable_definitions(recipe: str, tmp_path: Path) -> None:
    defined = definitions(recipe, tmp_path)
    dg.Definitions.validate_loadable(defined)
    keys = {key.to_user_string() for key in defined.resolve_asset_graph().get_all_asset_keys()}
    parts = load_recipe(recipe)
    assert {f"{arm}/eval_scores" for arm in parts.arms} | {f"{name}/instruction_pairs" for name in parts.pair_sets} <= keys
    assert any("instruction_tuned" in key for key in keys) == (parts.instruction_tuning is not None)
    assert not list(tmp_path.iterdir())  # loading asks no store


def test_what_a_recipe_does_not_need_is_not_defined(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("tuning", "synthesizer", "instruction_tuning"))
    recipe = write_recipe(tmp_path / "plain.yaml", **nothing, pair_sets={}, arms={"vanilla": {"mixture": [{"component": "corpus"}]}})
    content = yaml.safe_load(recipe.read_text())
    assert content["synthesizer"] is None
    found = structure(definitions(recipe, tmp_path / "store"))
    arm = rows(ARM.format(arm="vanilla", components="tokenized_raw*"))
    assert found == rows(CORPUS) | arm | {"comparison_report": ("comparison", "-", {"vanilla/eval_scores*"})}


def test_pair_sets_with_writers_of_their_own_need_no_synthesizer(tmp_path: Path) -> None:
    writers = {
        "released": {"kind": "synthesizer", "model": "org/synthesizer"},
        "chat": {"kind": "chat", "model": "org/chat"},
        "served": {"kind": "server", "model": "chat"},
        "imported": {"kind": "imported"},
    }
    arm = {"mixture": [{"component": "corpus", "pair_set": "imported"}]}
    recipe = write_recipe(
        tmp_path / "own.yaml",
        **dict.fromkeys(("tuning", "synthesizer", "instruction_tuning")),
        pair_sets={name: {"writer": writer} for name, writer in writers.items()},
        arms={"instruct": arm},
    )
    defined = definitions(recipe, tmp_path / "store")
    dg.Definitions.validate_loadable(defined)
    found, graph = structure(defined), defined.resolve_asset_graph()
    assert not {"tuning_collection", "instruction_synthesizer", "synthesizer_quality"} & set(found)
    nodes = {name: graph.get(dg.AssetKey([name, "instruction_pairs"])) for name in writers}
    for name, node in nodes.items():
        assert found[f"{name}/instruction_pairs"] == (name, "shards", {"clean_corpus"})
        assert node.description and node.backfill_policy == dg.BackfillPolicy.single_run()
    assert {name: node.pools for name, node in nodes.items()} == {"released": {"gpu"}, "chat": {"gpu"}, "served": set(), "imported": set()}
    assert {name: set(node.kinds) for name, node in nodes.items()} == {
        "released": {"vllm"},
        "chat": {"vllm"},
        "served": {"openai"},
        "imported": {"polars"},
    }
    assert len({node.description for node in nodes.values()}) == 4


def test_one_job_for_each_kind_of_partitions(tmp_path: Path) -> None:
    defined = definitions("demo", tmp_path)
    found = structure(defined)
    jobs = {
        job: {key.to_user_string() for key in defined.resolve_job_def(job).asset_layer.selected_asset_keys}
        for job in ("shards", "synthesizer", "seeds", "report")
    }
    assert jobs["shards"] == {key for key, (_, kind, _) in found.items() if kind == "shards"} | {"duplicate_documents"}
    assert jobs["seeds"] == {key for key, (_, kind, _) in found.items() if kind == "seeds"}
    assert jobs["report"] == {"comparison_report", "synthesized/corpus_quality"}
    assert set.union(*jobs.values()) == set(found) and sum(map(len, jobs.values())) == len(found)


WRONG = [
    ({"colour": "red"}, "colour: unknown field"),
    (
        {"arms": {"instruct": {"mixture": [{"component": "corpus", "pair_set": "nobody"}]}}},
        "arms.instruct.mixture.0.pair_set: unknown 'nobody'",
    ),
    (
        {"arms": {"vanilla": {"mixture": [{"component": "corpus"}], "shards": ["missing--0000"]}}},
        "arms.vanilla.shards: 'missing--0000' names no corpus",
    ),
    (
        {"arms": {"raw_corpus": {"mixture": [{"component": "corpus"}]}}},
        "arms and pair_sets cannot be named 'raw_corpus': assets or groups of the graph have these names",
    ),
    (
        {"arms": {"mix": {"mixture": [{"component": "corpus", "ratio": 0.5}, {"component": "tuning", "ratio": 0.4}]}}},
        "arms.mix: ratios add up to 0.9, not 1",
    ),
]


def command(*arguments: str, recipe: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "INSTPT_RECIPE": str(recipe),
        "DAGSTER_HOME": str(recipe.parent / "home"),
        "INSTPT_STORE": str(recipe.parent / "store"),
    }
    (recipe.parent / "home").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments], env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"), WRONG, ids=["unknown field", "missing pair set", "missing corpus", "reserved name", "ratios"]
)
def test_a_wrong_recipe_ends_the_commands_with_one_message(content: dict, message: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "wrong.yaml", **content)
    done = command("instpt_assets.defs.materialize", recipe=recipe)
    assert done.returncode == 1
    assert f"error: recipe {recipe} is not valid:\n  {message}" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 2


def test_a_wrong_recipe_fails_when_the_definitions_load(tmp_path: Path) -> None:
    content, message = WRONG[1]
    recipe = write_recipe(tmp_path / "wrong.yaml", **content)
    done = command("dagster", "definitions", "validate", "-m", "instpt_assets.definitions", recipe=recipe)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "pydantic" not in done.stdout + done.stderr  # where it was noticed helps nobody
    prepared = command("instpt_assets.defs.home", recipe=recipe)
    assert prepared.returncode == 1 and message in prepared.stderr and "Traceback" not in prepared.stderr
