"""Decontamination in real runs: what overlaps goes, what does not stays current, and nobody takes an index that was not there for a clean corpus."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from light_project import CORPUS, WITH_PAIRS, LightProject, failure

from instpt_assets.corpus.contamination_index import write_index
from instpt_assets.defs.build import build_definitions
from instpt_assets.defs.corpus_checks import COMPARED
from instpt_assets.defs.materialize import materialize_recipe
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import range_tags
from instpt_assets.evaluation.examples import source_examples
from instpt_assets.recipe.decontamination import Decontamination
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask
from instpt_assets.store.making import Inputs, find_or_make
from instpt_assets.store.manifest import Spec

TAGS = range_tags("notes--a", "notes--c")
PLANTED = "Of the seven lighthouses along the northern coast only the oldest is still kept by a family that lives in it."


class Decontaminated(LightProject):
    """Three shards, the second of which holds the example of an evaluation set; its listing is done here, without lm-eval."""

    def __init__(self, root: Path, **recipe: Any) -> None:
        self.quiz = root / "quiz.jsonl"
        self.ask(PLANTED)
        super().__init__(root, decontamination={"sources": {"quiz": {"source": str(self.quiz)}}}, **recipe)
        self.write("b", note=PLANTED.upper())

    def ask(self, *questions: str) -> None:
        self.quiz.write_text("".join(json.dumps({"id": n, "question": text}) + "\n" for n, text in enumerate(questions)))

    def index(self, **compared: int) -> None:
        """What the worker leaves, of the sources alone."""

        def build(_spec: Spec, _inputs: Inputs, out: Path) -> dict[str, Any]:
            decontamination = self.project.recipe.decontamination
            assert decontamination is not None
            examples = (example for asked in source_examples(decontamination.sources) for example in asked.examples)
            statistics = write_index(examples, ngram_words=13, shortest=8, out=out)
            return {**statistics, "compared": {"held_out": 8, "quiz": statistics["num_examples"], **compared}}

        store = self.project.store
        store.point(self.project.recipe.name, find_or_make(store, self.project.plan().spec("evaluation_examples"), build).artifact)

    def evaluations(self) -> dict[str | None, dg.AssetCheckEvaluation]:
        """The last evaluation of the check by shard."""
        key = dg.AssetCheckKey(dg.AssetKey("clean_corpus"), COMPARED)
        records = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        events = [(record.partition, record.event.dagster_event) for record in reversed(records) if record.event]
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        return {shard: event.asset_check_evaluation_data for shard, event in events if event and event.event_type == kind}


def test_what_overlaps_goes_with_a_report_and_a_changed_question_remakes_nothing_behind_an_unchanged_shard(tmp_path: Path) -> None:
    light = Decontaminated(tmp_path)
    assert "evaluation_examples is not materialized: materialize it first" in failure(light.run("shards", *CORPUS, tags=TAGS))
    light.index()
    assert light.run("shards", *CORPUS, tags=TAGS).success
    plan = light.project.plan()
    clean = {key: plan.current("clean_corpus", key) for key in ("notes--a", "notes--b", "notes--c")}
    assert [artifact.manifest.statistics["num_removed"] for artifact in clean.values()] == [0, 1, 0]
    assert clean["notes--b"].manifest.statistics["overlaps_by_task"] == {"quiz": 1}
    (overlap,) = pl.read_parquet(clean["notes--b"].file("overlaps.parquet")).to_dicts()
    assert overlap == {"document_id": "notes/b0", "task": "quiz", "example_id": "quiz/0", "words": PLANTED.lower().rstrip(".")}
    assert PLANTED.split()[-1].rstrip(".") in clean["notes--b"].file("overlaps.md").read_text()
    passed = light.evaluations()
    assert {key: evaluation.passed for key, evaluation in passed.items()} == {"notes--a": True, "notes--b": True, "notes--c": True}
    assert passed["notes--b"].metadata["overlapping_documents"].value == 1

    assert light.run("synthesizer", "tokenizer").success
    assert light.run("shards", "tokenized_raw", tags=TAGS).success
    light.ask(PLANTED, "How many of the boats that lie in the harbour of the island belong to its fishermen today?")
    assert not any(light.project.plan().shard_is_current(key) for key in clean)  # so the nightly run takes them
    light.index()
    assert not any(light.project.plan().is_current("clean_corpus", key) for key in clean)
    assert light.run("shards", *CORPUS, tags=TAGS).success
    plan = light.project.plan()
    for key, before in clean.items():
        now = plan.current("clean_corpus", key).manifest
        assert now.identity != before.manifest.identity
        assert now.digest == before.manifest.digest
        assert plan.shard_is_current(key)


def test_a_shard_that_was_compared_with_too_little_goes_no_further(tmp_path: Path) -> None:
    light = Decontaminated(tmp_path)
    light.index(held_out=0)
    told = failure(light.run("shards", *CORPUS, tags=range_tags("notes--a", "notes--a")))
    assert "notes--a: it was compared with no example of held_out" in told and "skipped.parquet" in told
    assert not light.evaluations()["notes--a"].passed


def test_a_corpus_that_was_made_before_the_recipe_decontaminated_fails_the_check(tmp_path: Path) -> None:
    light = LightProject(tmp_path)
    assert light.run("shards", *CORPUS, tags=TAGS).success
    recipe = light.project.recipe.model_copy(update={"decontamination": Decontamination()})
    definitions = build_definitions(Project(recipe, light.project.execution, light.project.store.url))
    check = dg.define_asset_job("check", selection=dg.AssetSelection.checks_for_assets(dg.AssetKey("clean_corpus")))
    job = dg.Definitions(assets=definitions.assets, asset_checks=definitions.asset_checks, jobs=[check]).resolve_job_def("check")
    told = failure(job.execute_in_process(instance=light.instance, tags=TAGS, raise_on_error=False))
    assert "notes--b: it was made without evaluation_examples: materialize evaluation_examples, then clean_corpus" in told


def test_without_the_section_there_is_no_index_and_no_check(tmp_path: Path) -> None:
    light = LightProject(tmp_path)
    graph = light.definitions.resolve_asset_graph()
    assert dg.AssetKey("evaluation_examples") not in graph.get_all_asset_keys()
    assert not [key for key in graph.asset_check_keys if key.asset_key == dg.AssetKey("clean_corpus")]


def test_examples_follow_what_is_asked_not_how_it_is_scored(tmp_path: Path) -> None:
    light = LightProject(tmp_path)

    def identity(n: int = 13, limit: int | None = None, **task: Any) -> str:
        evaluation = Evaluation(harness_tasks=(HarnessTask(task="piqa", **task),), limit=limit)
        update = {"decontamination": Decontamination(ngram_words=n), "evaluation": evaluation}
        return (
            Project(light.project.recipe.model_copy(update=update), light.project.execution, light.project.store.url)
            .plan()
            .spec("evaluation_examples")
            .identity
        )

    assert identity() == identity(limit=5, metric="acc", num_fewshot=3)
    assert identity() != identity(n=8)


def test_a_source_that_is_missing_is_named_by_its_field(tmp_path: Path) -> None:
    light = Decontaminated(tmp_path)
    light.quiz.unlink()
    with pytest.raises(ValueError, match=r"^decontamination\.sources\.quiz: source '.*quiz\.jsonl' matches no file"):
        light.project.plan().spec("evaluation_examples")


@pytest.mark.slow
def test_make_lists_the_examples_in_a_worker_before_what_is_compared_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuning = {"sources": {"topics": {"source": "pydoc://topics", "max_examples": 20}, "quiz": {"source": str(tmp_path / "tuning.jsonl")}}}
    pairs = [{"question": "What of the lighthouses?", "answer": "They are kept."}]
    contexts = [{"context": PLANTED, "pairs": pairs}, {"context": "A harbour with boats lies below the hill.", "pairs": pairs}]
    (tmp_path / "tuning.jsonl").write_text("".join(json.dumps(context) + "\n" for context in contexts))
    light = Decontaminated(tmp_path, **{**WITH_PAIRS, "tuning": tuning})
    select = 'group:corpus or key:"tuning_collection"'
    assert materialize_recipe(light.project, light.instance, select, ())
    made = capsys.readouterr().out
    assert made.index("evaluation_examples") < made.index("clean_corpus") < made.index("tuning_collection")
    plan = light.project.plan()
    statistics = plan.current("evaluation_examples").manifest.statistics
    assert statistics["compared"] == {"held_out": 40, "quiz": 1}
    assert plan.current("clean_corpus", "notes--b").manifest.statistics["overlaps_by_task"] == {"quiz": 1}
    tuning_artifact = plan.current("tuning_collection")
    assert tuning_artifact.manifest.statistics["rejected_by_reason"]["contaminated"] == 1
    rejected = pl.read_parquet(tuning_artifact.file("rejected.parquet")).filter(pl.col("dataset") == "quiz").to_dicts()
    assert [(row["position"], row["reason"][:26]) for row in rejected] == [(0, "contaminated: quiz quiz/0:")]
    assert all(evaluation.passed for evaluation in light.evaluations().values())
    assert materialize_recipe(light.project, light.instance, select, ())
    assert all(plan.is_current(asset, key) for asset, key in (("evaluation_examples", "all"), ("clean_corpus", "notes--b")))
