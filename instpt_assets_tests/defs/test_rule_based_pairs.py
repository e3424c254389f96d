"""A rule-based pair set in the graph: pairs, texts and tokens of an arm without any model, and what gives it another identity."""

import json
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from light_project import CORPUS, LightProject

from instpt_assets.defs import pair_plan, stage_inputs, text_pairs
from instpt_assets.defs.shards import range_tags
from instpt_assets.synthesis.rule_based_phrasings import PHRASINGS, load_rule_phrasings

PROSE = (
    "{0} sales declined in March because dealers in {1} had too few items in stock. Therefore, {0} makers have increased their production again. "
    "Prices of existing {1} were unchanged from a year ago in {0} districts. Lenders to {1} reported fewer {0} applications than they expected. "
    "Contractors of {1} expect little new {0} business before the spring, although credit for {1} remained available.\n\n"
    "Commercial {0} lenders reported stronger competition for {1}. Retail prices of {0} increased due to a shortage of {1}. "
    "We measured the {0} price index of all {1} twice a month. Farmers of {0} depend on a single crop, namely the {1} potato."
)
WORDS = "copper timber garment tractor harbor orchard ceramic railway furniture bicycle chemical textile printing leather aluminium software".split()


@pytest.fixture
def light(tmp_path: Path) -> LightProject:
    """Two shards of notes whose pairs rules find, with one arm that takes them."""
    light = LightProject(
        tmp_path,
        shards="ab",
        pair_sets={"rules": {"writer": {"kind": "rule_based", "max_pairs": 3}, "shots": 3, "max_passage_tokens": 150}},
        arms={"instruct": {"mixture": [{"component": "corpus", "pair_set": "rules"}]}},
    )
    for shard in "ab":
        words = WORDS[8 * (ord(shard) - ord("a")) :]
        records = [
            {"id": f"{shard}{n}", "title": "Sales and Prices in March", "text": PROSE.format(words[2 * n], words[2 * n + 1])}
            for n in range(4)
        ]
        (tmp_path / "notes" / f"{shard}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return light


def test_rule_based_pairs_go_all_the_way_into_an_arm(light: LightProject) -> None:
    everything = range_tags("notes--a", "notes--b")
    assert light.run("shards", *CORPUS, tags=everything).success
    assert light.run("synthesizer").success
    made = light.run("shards", tags=everything)
    evaluations = [e for e in made.all_events if e.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
    assert made.success and len(evaluations) == 4 and all(e.asset_check_evaluation_data.passed for e in evaluations)
    assert light.run("seeds", "instruct/tokenized_mixture", tags={"dagster/partition": "seed-0"}).success
    now = light.project.plan()
    for shard in now.registered_shards:
        clean = pl.read_parquet(now.current("clean_corpus", shard).tables())
        artifact = now.current("rules/instruction_pairs", shard)
        rows, statistics = pl.read_parquet(artifact.tables()), artifact.manifest.statistics
        joined = rows.group_by("document_id", maintain_order=True).agg(pl.col("text").str.join(""))
        assert joined["text"].to_list() == clean["text"].to_list()
        assert 0 < statistics["num_pairs"] <= 3 * statistics["num_passages"] and statistics["measures"]["unsupported"] == 0
        assert rows["shot"].max() == 2 and {"Sales and Prices in March"} < {p["response"] for pairs in rows["pairs"] for p in pairs}
        texts = pl.read_parquet(now.current("rules/augmented_corpus", shard).tables())
        assert texts["num_pairs"].sum() == statistics["num_pairs"]
        assert texts["passage_ids"].list.len().sum() == len(rows)
    key = dg.AssetKey(["rules", "instruction_pairs"])
    event = light.instance.get_latest_materialization_event(key)
    assert event is not None and event.asset_materialization is not None
    told = event.asset_materialization.metadata
    assert set(told) >= {"preview", "pairs_by_task", "passages_per_second", "pairs_per_passage", "no_valid_pair_share", "execution"}
    again = {shard: now.current("rules/instruction_pairs", shard).manifest for shard in now.registered_shards}
    assert light.run("shards", "rules/instruction_pairs", tags=everything).success
    assert {shard: light.project.plan().current("rules/instruction_pairs", shard).manifest for shard in again} == again


def test_another_wording_or_other_rules_give_another_identity(light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert light.run("shards", *CORPUS, tags=range_tags("notes--a", "notes--a")).success

    def spec() -> dict[str, str]:
        now = light.project.plan()
        return {stage: now.spec(stage, "notes--a").identity for stage in ("clean_corpus", "rules/instruction_pairs")}

    before = spec()
    recipe = light.project.plan().spec("rules/instruction_pairs", "notes--a").recipe
    assert recipe["max_passage_tokens"] == 150 and set(recipe) == {"writer", "fraction", "shots", "max_passage_tokens", "rules_version"}
    content = yaml.safe_load(PHRASINGS.read_text(encoding="utf-8"))
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({**content, "title": ["What is the title?"]}, sort_keys=False))
    found = [before]
    for name in ("same.yaml", "other.yaml"):
        monkeypatch.setattr(stage_inputs, "load_rule_phrasings", lambda name=name: load_rule_phrasings(tmp_path / name))
        found.append(spec())
    assert found[1] == before
    monkeypatch.undo()
    monkeypatch.setattr(stage_inputs, "RULES_VERSION", 10**6)
    found.append(spec())
    assert len({identities["clean_corpus"] for identities in found}) == 1
    assert len({identities["rules/instruction_pairs"] for identities in found}) == 3


def test_commands_about_writing_know_what_rules_are(
    light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INSTPT_RECIPE", str(tmp_path / "light.yaml"))
    monkeypatch.setenv("INSTPT_STORE", str(tmp_path / "store"))
    with pytest.raises(
        SystemExit, match="'rules' are found by rules, no model writes them .*: make materialize makes them, make pairs shows"
    ):
        pair_plan.main(["--pair-set", "rules"])
    text = "Car sales declined in March because dealers had too few vehicles in stock. Prices of existing homes were unchanged from a year ago."
    (tmp_path / "text.txt").write_text(text)
    shown = []
    for arguments in ([], ["--pair-set", "rules"]):
        monkeypatch.setattr(sys, "stdin", (tmp_path / "text.txt").open())
        with pytest.raises(SystemExit) as ended:
            text_pairs.main(arguments)
        assert ended.value.code == 0
        out, err = capsys.readouterr()
        assert "pair set 'rules': passages: 1; pairs: " in err
        shown.append([json.loads(line) for line in out.splitlines()])
    assert shown[0] == shown[1] and all(pair["passage"] == text for pair in shown[0])
    assert "Because dealers had too few vehicles in stock." in {pair["response"] for pair in shown[0]}
