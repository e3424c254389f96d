"""The tuning collection keeps what can be used, says what cannot, and is the same every time."""

import gzip
import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.contamination_index import EvaluationExample, write_index
from instpt_assets.recipe.synthesis import Tuning, TuningSource
from instpt_assets.synthesis.support import supported
from instpt_assets.synthesis.tuning_collection import build_tuning_collection


def record(number: int, num_pairs: int = 1, **changes) -> dict:
    pairs = [{"question": f"Question {i}?", "answer": f"answer {i}", "options": None, "rationale": None} for i in range(num_pairs)]
    return {"context": f"Context number {number}.", "pairs": pairs, "license": "CC0-1.0", **changes}


def write_lines(path: Path, records: list) -> str:
    lines = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


def build(out: Path, *, held_out_fraction: float = 0.05, **sources: TuningSource) -> tuple[dict, pl.DataFrame, pl.DataFrame]:
    out.mkdir()
    statistics = build_tuning_collection(Tuning(sources=sources, held_out_fraction=held_out_fraction), out=out)
    return statistics, pl.read_parquet(out / "data-*.parquet"), pl.read_parquet(out / "rejected.parquet")


def test_options_and_rationales_are_kept(tmp_path):
    choice = {"question": "Which one?", "answer": "b", "options": ["a", "b"], "rationale": "It says b."}
    source = TuningSource(source=write_lines(tmp_path / "set.jsonl.gz", [record(0, pairs=[choice])]))
    _, examples, _ = build(tmp_path / "out", task=source)
    assert examples["pairs"].to_list() == [
        [{"instruction": "Which one?", "response": "b", "options": ["a", "b"], "reasoning": "It says b."}]
    ]
    assert examples["license"].to_list() == ["CC0-1.0"]


def test_malformed_records_are_kept_apart_with_reason_and_position(tmp_path):
    broken = [
        record(0),
        "{not json",
        record(2, pairs=[]),
        record(3, pairs=[{"question": "Q?", "answer": 4}]),
        record(4, pairs=[{"question": " ", "answer": "a"}]),
        record(5, pairs=[{"question": "Q </END>?", "answer": "a"}]),
        {"pairs": []},
        record(7, pairs=[{"question": "Q?", "answer": "a", "options": "a or b"}]),
    ]
    statistics, examples, rejected = build(tmp_path / "out", task=TuningSource(source=write_lines(tmp_path / "set.jsonl", broken)))
    assert examples.height == 1
    assert rejected["position"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    assert [reason.split(":")[0] for reason in rejected["reason"]] == [
        "broken JSON",
        "no pairs",
        "question or answer is not a string",
        "empty question or answer",
        "a marker of the prompt format in a pair",
        "missing text field 'context'",
        "options are not a list of strings",
    ]
    assert statistics["num_rejected"] == 7
    assert "not json" in rejected["record"][0]


def test_contexts_with_the_most_pairs_stay(tmp_path):
    source = write_lines(tmp_path / "set.jsonl", [record(0, 1), record(1, 3), record(2, 2), record(3, 3)])
    statistics, examples, _ = build(tmp_path / "out", task=TuningSource(source=source, max_examples=2))
    assert examples["context"].to_list() == ["Context number 1.", "Context number 3."]
    assert statistics["datasets"]["task"] == {"num_examples": 2, "num_pairs": 6, "num_left_out": 2}


def test_repeated_contexts_and_questions_stand_once(tmp_path):
    twice = record(0, pairs=[{"question": "Q?", "answer": "a"}, {"question": "q?", "answer": "b"}])
    _, examples, _ = build(tmp_path / "out", task=TuningSource(source=write_lines(tmp_path / "set.jsonl", [twice, twice])))
    assert [[pair["response"] for pair in pairs] for pairs in examples["pairs"]] == [["a"]]


def test_the_split_depends_on_the_context_alone(tmp_path):
    many = [record(i) for i in range(200)]
    _, all_, _ = build(tmp_path / "one", held_out_fraction=0.2, task=TuningSource(source=write_lines(tmp_path / "a.jsonl", many)))
    _, fewer, _ = build(tmp_path / "two", held_out_fraction=0.2, other=TuningSource(source=write_lines(tmp_path / "b.jsonl", many[::-2])))
    splits = dict(zip(all_["context"], all_["split"], strict=True))
    assert 15 < sum(split == "held_out" for split in splits.values()) < 65
    assert all(splits[context] == split for context, split in zip(fewer["context"], fewer["split"], strict=True))


def test_documentation_gives_several_supported_pairs_a_context(tmp_path):
    source = TuningSource(source="pydoc://stdlib?include=argparse,json,logging")
    statistics, examples, rejected = build(tmp_path / "out", docs=source)
    assert statistics["num_examples"] == examples.height > 20
    assert rejected.height == 0
    assert statistics["num_pairs"] / examples.height > 2
    for context, pairs in zip(examples["context"], examples["pairs"], strict=True):
        assert all(supported(pair["response"], context) or pair["response"] in ("Yes", "No") for pair in pairs)


def test_the_same_sources_give_the_same_bytes(tmp_path):
    source = TuningSource(source="pydoc://stdlib?include=json,csv")
    build(tmp_path / "one", docs=source)
    build(tmp_path / "two", docs=source)
    for name in ("data-00000.parquet", "rejected.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_source_without_any_example_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no context with pairs"):
        build(tmp_path / "out", task=TuningSource(source=write_lines(tmp_path / "set.jsonl", [record(0, pairs=[])])))


def test_the_collection_is_as_it_was(tmp_path, monkeypatch, golden):
    """What the rules make: test_questions."""
    monkeypatch.chdir(tmp_path)
    url = write_lines(tmp_path / "set.jsonl", [record(number, 1 + number % 3) for number in range(20)])
    _, examples, rejected = build(tmp_path / "out", set=TuningSource(source=url, max_examples=12))
    golden("tuning_collection", hashlib.sha256(json.dumps([examples.rows(), rejected.rows()]).encode()).hexdigest()[:16])


def test_an_example_whose_context_or_pairs_hold_an_evaluation_example_is_rejected_and_counted(tmp_path: Path) -> None:
    asked = "Which of the two harbours of the island freezes over in most winters, and why does the other one not?"
    (tmp_path / "index").mkdir()
    write_index([EvaluationExample("islands", "3", asked)], ngram_words=13, shortest=8, out=tmp_path / "index")
    in_pair = record(2, pairs=[{"question": asked.upper(), "answer": "The northern one."}])
    records = [record(0), record(1, context=f"A quiz. {asked}"), in_pair, *(record(number) for number in range(3, 700))]
    tuning = Tuning(sources={"quiz": TuningSource(source=write_lines(tmp_path / "quiz.jsonl", records))})
    (tmp_path / "out").mkdir()
    statistics = build_tuning_collection(tuning, out=tmp_path / "out", contamination=ContaminationIndex.read(tmp_path / "index"))
    assert (statistics["num_examples"], statistics["num_rejected"], statistics["rejected_by_reason"]) == (698, 2, {"contaminated": 2})
    rejected = pl.read_parquet(tmp_path / "out" / "rejected.parquet")
    assert rejected["position"].to_list() == [1, 2]
    assert all(reason.startswith("contaminated: islands 3: which of the two harbours") for reason in rejected["reason"])
