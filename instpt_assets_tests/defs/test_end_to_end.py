"""A user's own recipe, from a folder of JSON Lines to the comparison, with every real component; then what incremental means."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from project_folder import MALFORMED, ProjectFolder, every_artifact

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> ProjectFolder:
    folder = ProjectFolder(tmp_path_factory.mktemp("mine"))
    result = folder.materialize()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "vanilla" in result.stdout and "instruct" in result.stdout
    report = next(line for line in result.stdout.splitlines() if line.startswith("Report: "))
    assert Path(report.removeprefix("Report: ")).exists()
    return folder


def table(folder: ProjectFolder, asset: str, partition: str) -> pl.DataFrame:
    artifact = folder.store.current("mine", asset, partition)
    assert artifact is not None
    return pl.read_parquet(artifact.tables())


def test_every_asset_and_partition_of_the_recipe_is_materialized(done: ProjectFolder) -> None:
    assert done.artifacts().keys() == every_artifact("notes--a", "notes--b")


def test_bad_records_are_rejected_with_reason_and_position_and_the_rest_goes_through(done: ProjectFolder) -> None:
    artifact = done.store.current("mine", "raw_corpus", "notes--b")
    assert artifact is not None
    rejected = pl.read_parquet(artifact.file("rejected.parquet")).sort("position")
    assert rejected["position"].to_list() == list(range(len(MALFORMED)))
    for reason, (_, word) in zip(rejected["reason"], MALFORMED, strict=True):
        assert word in reason
    documents = table(done, "raw_corpus", "notes--b")
    assert "notes/markers" in documents["document_id"].to_list() and documents.height == 9


def test_every_passage_has_a_status_and_joins_to_its_document(done: ProjectFolder) -> None:
    for shard in ("notes--a", "notes--b"):
        pairs = table(done, "synthesized/instruction_pairs", shard)
        assert set(pairs["status"]) <= {"ok", "no_valid_pair"}
        joined = pairs.sort("passage_id").group_by("document_id", maintain_order=True).agg(pl.col("text").str.join(""))
        documents = table(done, "clean_corpus", shard).select("document_id", "text").sort("document_id")
        assert joined.sort("document_id").equals(documents)


def test_most_passages_get_pairs_and_the_instruct_arm_trains_on_them(done: ProjectFolder) -> None:
    shards = ("notes--a", "notes--b")
    pairs = pl.concat([table(done, "synthesized/instruction_pairs", shard) for shard in shards])
    assert (pairs["status"] == "ok").mean() > 0.5
    texts = pl.concat([table(done, "synthesized/augmented_corpus", shard) for shard in shards])
    assert texts["num_pairs"].sum() == pairs["pairs"].list.len().sum()
    by_passage = dict(pairs.select("passage_id", "pairs").iter_rows())
    for text, passage_ids in texts.select("text", "passage_ids").iter_rows():
        for pair in (pair for passage in passage_ids for pair in by_passage[passage]):
            assert pair["instruction"] in text and pair["response"] in text
    augmented = pl.col("asset") == "synthesized/tokenized_augmented"
    assert table(done, "instruct/tokenized_mixture", "seed-0").filter(augmented)["share"].sum() > 0.8
    assert table(done, "mix/tokenized_mixture", "seed-0").filter(augmented).is_empty()


def test_checkpoints_load_in_transformers(done: ProjectFolder) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for asset, partition in [
        ("instruct/pretrained_checkpoint", "seed-0"),
        ("vanilla/instruction_tuned_checkpoint", "seed-0"),
        ("instruction_synthesizer", "all"),
    ]:
        artifact = done.store.current("mine", asset, partition)
        assert artifact is not None
        folder = artifact.local() / "checkpoint"
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        assert model(**tokenizer("A class is", return_tensors="pt", return_token_type_ids=False)).logits.isfinite().all()


def test_checkpoints_kept_on_the_way_are_scored_and_the_report_takes_the_last(done: ProjectFolder) -> None:
    scores = table(done, "vanilla/eval_scores", "seed-0")
    steps = {name: set(rows["step"]) for (name,), rows in scores.group_by("checkpoint")}
    assert steps == {"pretrained_checkpoint/checkpoint-4": {4}, "pretrained_checkpoint/checkpoint": {8}}
    last = scores.filter(pl.col("step") == 8).select("task", "metric", "value").sort("task", "metric")
    report = table(done, "comparison_report", "all").filter((pl.col("arm") == "vanilla") & (pl.col("stage") == "pretrained"))
    assert report.select("task", "metric", "value").sort("task", "metric").equals(last)


@pytest.mark.slow
def test_every_trained_checkpoint_generates_in_vllm(done: ProjectFolder) -> None:
    code = (
        "import sys\n"
        "from vllm import LLM, SamplingParams\n"
        "if __name__ == '__main__':\n"
        "    for folder in sys.argv[1:]:\n"
        "        llm = LLM(folder, max_model_len=64, enforce_eager=True, kv_cache_memory_bytes=2**28)\n"
        "        (output,) = llm.generate('A class is', SamplingParams(max_tokens=4, ignore_eos=True), use_tqdm=False)\n"
        "        print('generated', len(output.outputs[0].token_ids))\n"
        "        llm.llm_engine.engine_core.shutdown()\n"
    )
    script = done.root / "load.py"
    script.write_text(code)
    folders = [
        str(artifact.local() / "checkpoint")
        for arm in ("vanilla", "mix", "instruct")
        for stage in ("pretrained_checkpoint", "instruction_tuned_checkpoint")
        if (artifact := done.store.current("mine", f"{arm}/{stage}", "seed-0")) is not None
    ]
    environment = {**done.environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    result = subprocess.run(
        [sys.executable, str(script), *folders], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert result.stdout.count("generated 4") == 6, result.stderr[-2000:]


def test_materializing_again_recomputes_nothing(done: ProjectFolder) -> None:
    before = done.artifacts()
    manifests = {path: path.stat().st_mtime_ns for path in (done.root / "store").rglob("manifest.json")}
    result = done.materialize()
    assert result.returncode == 0, result.stderr[-3000:]
    assert done.artifacts() == before
    assert {path: path.stat().st_mtime_ns for path in (done.root / "store").rglob("manifest.json")} == manifests
    assert ": made" not in result.stdout + result.stderr


class Recomputed:
    """What a run made again, against what the digests that it changed reach."""

    def __init__(self, folder: ProjectFolder) -> None:
        self.folder = folder
        self.digests, self.manifests = self._digests(), self._manifests()

    def _digests(self) -> dict[tuple[str, str], str]:
        return {key: digest for key, (_, digest) in self.folder.artifacts().items()}

    def _manifests(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (self.folder.root / "store").rglob("manifest.json")}

    def made(self) -> set[tuple[str, str]]:
        """Artifacts whose manifests were created since."""
        new = [path for path, time in self._manifests().items() if self.manifests.get(path) != time]
        return {(manifest["asset"], manifest["partition"]) for manifest in (json.loads(path.read_text()) for path in new)}

    def reached(self) -> set[tuple[str, str]]:
        """Current artifacts made from something whose digest is another than before."""
        after = self._digests()
        assert after.keys() == self.digests.keys()
        found = set()
        for asset, partition in after:
            artifact = self.folder.store.current("mine", asset, partition)
            assert artifact is not None
            if any(self.digests.get((i.asset, i.partition)) != after.get((i.asset, i.partition)) for i in artifact.manifest.inputs):
                found.add((asset, partition))
        return found


def test_a_deleted_shard_of_pairs_costs_itself_and_what_its_digest_reaches(done: ProjectFolder) -> None:
    deleted = ("synthesized/instruction_pairs", "notes--b")
    recomputed = Recomputed(done)
    shutil.rmtree(done.root / "store" / "/".join(deleted))
    result = done.materialize()
    assert result.returncode == 0, result.stderr[-3000:]
    assert recomputed.made() == {deleted} | recomputed.reached()
    assert {asset.split("/")[0] for asset, _ in recomputed.made()} <= {"synthesized", "instruct", "comparison_report"}


@pytest.mark.slow
def test_a_changed_pair_set_costs_what_it_reaches_and_going_back_costs_nothing(done: ProjectFolder) -> None:
    recipe, recomputed = done.recipe, Recomputed(done)
    done.recipe = {**recipe, "pair_sets": {"synthesized": {**recipe["pair_sets"]["synthesized"], "fraction": 0.5}}}
    done.write_recipe()
    result = done.materialize()
    assert result.returncode == 0, result.stderr[-3000:]
    pairs = {("synthesized/instruction_pairs", shard) for shard in ("notes--a", "notes--b")}
    made = recomputed.made()
    assert made == pairs | recomputed.reached()
    assert {("instruct/pretrained_checkpoint", "seed-0"), ("comparison_report", "all")} <= made
    assert {asset.split("/")[0] for asset, _ in made} == {"synthesized", "instruct", "comparison_report"}

    done.recipe, recomputed = recipe, Recomputed(done)
    done.write_recipe()
    result = done.materialize()
    assert result.returncode == 0, result.stderr[-3000:]
    assert recomputed.made() == set()


def test_an_appended_file_becomes_a_shard_and_changes_no_other(done: ProjectFolder) -> None:
    before = done.artifacts()
    text = "A new note about generators. A generator yields its values one after another, so that memory does not grow."
    (done.root / "notes" / "c.jsonl").write_text(json.dumps({"id": "c0", "text": text}) + "\n")
    result = done.materialize(
        "--shards",
        "notes--c",
        "--select",
        'key:"raw_corpus" or key:"document_signatures" or key:"duplicate_documents" or key:"clean_corpus"',
    )
    assert result.returncode == 0, result.stderr[-3000:]
    after = done.artifacts()
    assert after["clean_corpus", "notes--c"]
    assert {key for key in before if before[key] != after[key]} == {("duplicate_documents", "all")}
