"""A real lm-eval run on a tiny random model, and bits per byte against a direct calculation."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.evaluation.bits_per_byte import measure_bits
from instpt_assets.evaluation.harness import PreparedTasks, check_task_names, evaluate_checkpoint, load_tokenizer, prepare
from instpt_assets.evaluation.scores import EXAMPLE_SCHEMA, SCORE_SCHEMA, write_scores
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask

EVALUATION = Evaluation(
    held_out="pydoc://numpy?include=numpy.ma.extras,numpy.ma.core,numpy.ma,numpy.polynomial.polynomial", num_examples=12
)


def test_a_checkpoint_is_scored_on_every_local_task_and_twice_alike(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    tasks = prepare(EVALUATION, tmp_path / "tasks")
    found = [evaluate_checkpoint(tiny_checkpoint, tasks, batch_size=8) for _ in range(2)]
    assert found[0] == found[1]
    scores = {(score.task, score.metric): score for score in found[0].scores}
    assert set(scores) == {
        ("documentation_summaries", "acc"),
        ("documentation_summaries", "acc_norm"),
        ("documentation_reading", "acc"),
        ("documentation_reading", "acc_norm"),
        ("documentation_names", "exact_match"),
        ("documentation_answers", "exact_match"),
        ("held_out_documentation", "bits_per_byte"),
    }
    assert scores["documentation_answers", "exact_match"].num_fewshot == 2
    for (task, metric), score in scores.items():
        examples = [e for e in found[0].examples if (e.task, e.metric) == (task, metric)]
        assert score.num_examples == len(examples) == 12
        assert score.value == pytest.approx(sum(e.score * e.weight for e in examples) / sum(e.weight for e in examples))
        assert score.stderr is not None
    # The record of a multiple choice names the option that was chosen: right exactly where it scored.
    chosen = [e for e in found[0].examples if e.metric in ("acc", "acc_norm")]
    assert all((e.answer == e.target) == (e.score == 1.0) for e in chosen)

    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        write_scores([("pretrained_checkpoint/checkpoint", 7, found[0])], arm="vanilla", seed=0, out=tmp_path / name)
    table = pl.read_parquet(tmp_path / "once" / "data-00000.parquet")
    assert table.schema == SCORE_SCHEMA
    assert pl.read_parquet_schema(tmp_path / "once" / "examples.parquet") == EXAMPLE_SCHEMA
    for name in ("data-00000.parquet", "examples.parquet"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_task_version_follows_the_examples_not_the_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def versions(folder: str, **changed: int) -> dict[str, str]:
        (tmp_path / folder).mkdir()
        tasks = prepare(EVALUATION.model_copy(update={"num_examples": 4, **changed}), tmp_path / folder)
        return {s.task: s.task_version for s in evaluate_checkpoint(tiny_checkpoint, tasks, batch_size=8).scores}

    here, there, reseeded = versions("here"), versions("there"), versions("reseeded", seed=5)
    assert here == there
    assert all(here[task] != reseeded[task] for task in here)


def test_a_group_is_scored_with_its_number_of_shots_and_limit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    for name in ("letters", "numbers"):
        rows = [{"question": f"{name} {i}", "options": ["a", "bb"], "right": i % 2} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files = {"test": str(tmp_path / f"{name}.jsonl"), "train": str(tmp_path / f"{name}.jsonl")}
        config = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "cache")},
            "test_split": "test",
            "fewshot_split": "train",
            "output_type": "multiple_choice",
            "doc_to_text": "Q: {{question}}\nA:",
            "doc_to_choice": "options",
            "doc_to_target": "right",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(config))
    aggregate = [{"metric": "acc", "weight_by_size": True}]
    (tmp_path / "both.yaml").write_text(json.dumps({"group": "both", "task": ["letters", "numbers"], "aggregate_metric_list": aggregate}))
    named = (HarnessTask(task="both", num_fewshot=1), HarnessTask(task="letters", num_fewshot=2))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = evaluate_checkpoint(tiny_checkpoint, PreparedTasks(Evaluation(harness_tasks=named, limit=3), {}, {}, manager), batch_size=4)
    assert [(s.task, s.metric, s.num_fewshot, s.num_examples) for s in found.scores] == [("both", "acc", 1, 6), ("letters", "acc", 2, 3)]
    one_shot = [e for e in found.examples if e.task == "numbers"]
    assert len(one_shot) == 3
    assert all(e.prompt.count("Q:") == 2 for e in one_shot)
    assert [e.target for e in one_shot] == ["a", "bb", "a"]


def test_a_task_that_lm_eval_lacks_is_refused_with_what_is_near() -> None:
    check_task_names(["arc_easy"], ["arc_challenge", "arc_easy"])
    with pytest.raises(ValueError, match="has no task 'arc_eazy'; did you mean arc_easy"):
        check_task_names(["arc_easy", "arc_eazy"], ["arc_easy", "boolq"])


def test_prompts_begin_with_one_bos(tiny_checkpoint: Path) -> None:
    ids = load_tokenizer(tiny_checkpoint)("the mask")["input_ids"]
    assert ids[0] == 0
    assert ids.count(0) == 1


def test_bits_per_byte_equal_a_direct_calculation(tiny_checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_checkpoint).eval()
    tokenizer = load_tokenizer(tiny_checkpoint)
    documents = {"short": "the mask of ä", "long": "return the array along axis one, " * 9, "empty": ""}
    length = 16
    found = {d.id: d for d in measure_bits(model, tokenizer, documents, max_length=length, batch_size=3)}
    assert list(found) == ["short", "long"]
    assert found["short"].num_bytes == 14
    for name in found:
        ids = [0, *tokenizer(documents[name], add_special_tokens=False)["input_ids"]]
        bits = 0.0
        for target in range(1, len(ids)):
            start = (target - 1) // length * length
            logits = model(torch.tensor([ids[start:target]])).logits[0, -1].double()
            bits -= torch.log_softmax(logits, 0)[ids[target]].item() / math.log(2)
        assert found[name].bits == pytest.approx(bits, rel=1e-4)
