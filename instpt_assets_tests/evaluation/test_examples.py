"""The examples that a recipe evaluates on, as texts: tasks of lm-eval, held-out documentation, sets in files."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.contamination_index import write_index
from instpt_assets.evaluation.examples import compared_names, harness_examples, record_texts, source_examples, write_examples
from instpt_assets.recipe.decontamination import Decontamination, EvaluationSource
from instpt_assets.recipe.evaluation import Evaluation, HarnessTask

HELD_OUT = Evaluation(held_out="pydoc://numpy?include=numpy.polynomial", num_examples=8)


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_all_test_examples_of_a_group_of_lm_eval_are_listed_as_asked_and_as_they_stand_in_the_data(tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    for name in ("letters", "numbers"):
        rows = [
            {"id": f"{name[0]}{i}", "question": f"What of the {name} is {i}?", "options": ["this", "that"], "right": 1} for i in range(3)
        ]
        files = {"test": write_lines(tmp_path / f"{name}.jsonl", rows)}
        config = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "cache")},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "Look: {{question}}\nAnswer:",
            "doc_to_choice": "options",
            "doc_to_target": "right",
        }
        (tmp_path / f"{name}.yaml").write_text(json.dumps(config))
    (tmp_path / "both.yaml").write_text(json.dumps({"group": "both", "task": ["letters", "numbers"]}))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    asked = {item.task: list(item.examples) for item in harness_examples("both", manager)}
    assert {task: len({example.example_id for example in examples}) for task, examples in asked.items()} == {"letters": 3, "numbers": 3}
    assert [example.text for example in asked["letters"] if example.example_id == "l2"] == [
        "What of the letters is 2?\nthis that",
        "What of the letters is 2?\nA. this\nB. that",
        "Look: What of the letters is 2?\nAnswer:\nthis that",
    ]
    with pytest.raises(ValueError, match="data set of 'letter' cannot be loaded.*reach the hub"):
        list(harness_examples("letter", manager))


def test_held_out_documentation_and_sets_in_files_are_indexed_and_counted_by_name(tmp_path: Path) -> None:
    question = "Which of the two rivers that meet at the foot of the castle flows faster in the spring of a wet year?"
    write_lines(tmp_path / "rivers.jsonl", [{"id": 4, "question": question, "options": ["The left one", "The right one"]}])
    decontamination = Decontamination(sources={"rivers": EvaluationSource(source=str(tmp_path / "*.jsonl"))})
    out, folder = tmp_path / "out", tmp_path / "tasks"
    out.mkdir()
    folder.mkdir()
    statistics = write_examples(HELD_OUT, decontamination, out=out, folder=folder, progress=lambda _: None)
    assert list(statistics["compared"]) == compared_names(HELD_OUT, decontamination) == ["held_out", "rivers"]
    assert statistics["compared"] == {"held_out": 40, "rivers": 1}
    assert statistics["num_examples"] == pl.read_parquet(out / "data-*.parquet").select("task", "example_id").unique().height == 41
    assert {task for task, counts in statistics["tasks"].items() if counts["num_examples"] == 8} == {
        "documentation_answers", "documentation_names", "documentation_reading", "documentation_summaries", "held_out_documentation",
    }  # fmt: skip
    (overlap,) = ContaminationIndex.read(out).find([f"He asked: “{question.lower()}”"])
    assert overlap is not None and (overlap.task, overlap.example_id) == ("rivers", "rivers/4")


def test_the_texts_of_a_record_are_its_strings_without_bookkeeping() -> None:
    record = {
        "id": "x1",
        "license": "CC BY 4.0",
        "question": "Where is it?",
        "context": {"lines": ["It is", "in the box."]},
        "answer": "there",
    }
    assert record_texts(record)[0] == "Where is it?\nIt is in the box."
    assert record_texts(record)[-1].splitlines() == ["Where is it?", "A. It is", "B. in the box.", "there"]
    assert record_texts(record, ("license", "answer")) == ["CC BY 4.0\nthere"]
    assert record_texts({"tokens": ["The", "loan", "of", "1999"]}, ("tokens",))[0] == "The loan of 1999"


def test_a_damaged_evaluation_set_is_an_error_that_names_file_and_place(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    for content, told in (
        ('{"question": "a"}\n{"question"', "cannot be read"),
        ("[1]\n", "line 0 is not a JSON object"),
        ("\n", "no record"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"set.*{told}"):
            [list(asked.examples) for asked in source_examples({"mine": EvaluationSource(source=str(path))})]
    path.write_text('{"question": "a"}\n')
    with pytest.raises(ValueError, match="sources.mine.fields: .* no field 'prompt'.*question"):
        [list(asked.examples) for asked in source_examples({"mine": EvaluationSource(source=str(path), fields=("prompt",))})]


def test_an_evaluation_set_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    def ids(path: Path) -> list[str]:
        return [e.example_id for asked in source_examples({"mine": EvaluationSource(source=str(path))}) for e in asked.examples]

    records = [{"question": f"Who wrote letter {number}?"} for number in range(3)]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    plain, parquet, archive = tmp_path / "a.jsonl", tmp_path / "b.parquet", tmp_path / "c.jsonl.zst"
    plain.write_bytes(b"\xef\xbb\xbf" + lines)
    pl.DataFrame(records).write_parquet(parquet)
    archive.write_bytes(zstandard.compress(lines) + zstandard.compress(lines))
    assert [len(ids(path)) for path in (plain, parquet, archive)] == [3, 3, 6]
    archive.write_bytes(archive.read_bytes()[:-5])
    with pytest.raises(ValueError, match="c.jsonl.zst' cannot be read as jsonl.zst: the archive is truncated"):
        ids(archive)
    (tmp_path / "README.txt").write_text("Three letters.")
    with pytest.raises(ValueError, match="README.txt': a text file has no records"):
        ids(tmp_path)


def test_records_that_share_an_id_are_examples_of_their_own(tmp_path: Path) -> None:
    passage = "The ferry leaves the upper landing at nine and comes back from the island before the tide turns in the evening."
    questions = ["When does it leave the upper landing?", "Who owns it?", "Why at nine?", "Where to?", "How long?"]
    records = [{"id": "ferry", "question": question, "passage": passage} for question in questions]
    source = EvaluationSource(source=write_lines(tmp_path / "set.jsonl", records))
    (out := tmp_path / "out").mkdir()
    examples = [example for asked in source_examples({"mine": source}) for example in asked.examples]
    assert write_index(examples, ngram_words=13, shortest=8, out=out)["num_examples"] == 5
    index = ContaminationIndex.read(out)
    assert all(index.find([f"{question} {passage}" for question in questions]))


def test_a_source_cannot_have_the_name_of_a_task(tmp_path: Path) -> None:
    source = EvaluationSource(source=write_lines(tmp_path / "set.jsonl", [{"question": "Who wrote this letter?"}]))
    decontamination = Decontamination(sources={"documentation_names": source})
    with pytest.raises(ValueError, match="sources.documentation_names: a task that is evaluated on has this name"):
        write_examples(HELD_OUT, decontamination, out=tmp_path, folder=tmp_path, progress=lambda _: None)
    assert compared_names(Evaluation(harness_tasks=(HarnessTask(task="mmlu"),)), decontamination) == ["mmlu", "documentation_names"]
