"""The augmented corpus: which passages become one text, that none is lost, and what stands beside them."""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from instpt_assets.augmentation.augment import augment
from instpt_assets.augmentation.tuning_texts import lay_out_tuning
from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.contamination_index import EvaluationExample, write_index
from instpt_assets.recipe.synthesis import Layouts

MARKERS = ("<CON>", "</CON>", "<QUE>", "<ANS>", "</END>", "<s>", "</s>")
PAIRS = pl.List(pl.Struct({"instruction": pl.String, "response": pl.String, "options": pl.List(pl.String), "reasoning": pl.String}))


def pair(name: str, options: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "instruction": f"Instruction {name}?",
        "response": options[0] if options else f"response {name}",
        "options": list(options),
        "reasoning": None,
    }


def row(
    passage_id: str, chain: str | None, shot: int | None, status: str = "ok", *, text: str | None = None, num_pairs: int = 2
) -> dict[str, Any]:
    return {
        "passage_id": passage_id,
        "document_id": passage_id.split("/")[0],
        "chain_id": chain,
        "shot": shot,
        "text": text or f"Passage {passage_id} has its own words.\n\n",
        "status": status,
        "pairs": [pair(f"{passage_id}-{n}") for n in range(num_pairs)] if status == "ok" else [],
        "num_rejected_pairs": 0,
        "completion": "as generated",
        "num_prompt_tokens": 10,
        "num_completion_tokens": 10,
    }


def run(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    layouts: Layouts | None = None,
    *,
    parts: int = 1,
    contamination: ContaminationIndex | None = None,
) -> tuple[dict[str, Any], pl.DataFrame]:
    folder.mkdir(exist_ok=True)
    pairs_tables = []
    size = -(-len(rows) // parts)
    for part in range(parts):
        pairs_tables.append(folder / f"pairs-{part}.parquet")
        chosen = rows[part * size : (part + 1) * size]
        pl.DataFrame(chosen, schema_overrides={"pairs": PAIRS, "chain_id": pl.String, "shot": pl.Int32}).write_parquet(pairs_tables[-1])
    documents = list(dict.fromkeys(r["document_id"] for r in rows))
    clean = folder / "clean.parquet"
    pl.DataFrame({"document_id": documents, "metadata": [json.dumps({"license": f"L-{d}", "n": d}) for d in documents]}).write_parquet(
        clean
    )
    out = folder / "out"
    out.mkdir(exist_ok=True)
    statistics = augment(pairs_tables, [clean], layouts or Layouts(), pair_set="synthesized", out=out, contamination=contamination)
    return statistics, pl.read_parquet(out / "data-*.parquet")


def random_rows(num: int, seed: int) -> list[dict[str, Any]]:
    """Passages of documents of one to five, in chains of up to three, with failures, omissions and markers in the texts."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    chain = shot = 0
    for document in range(num):
        selected = rng.random() < 0.8
        for position in range(rng.randint(1, 5)):
            passage_id = f"d{document:04d}/{position:05d}"
            text = f"Text {passage_id} {rng.choice([*MARKERS, '{answer}', 'plain'])} end.\n\n"
            if not selected:
                rows.append(row(passage_id, None, None, "not_selected", text=text))
                continue
            if shot == 3:
                chain, shot = chain + 1, 0
            status = rng.choice(["ok", "ok", "ok", "no_valid_pair", "engine_error"])
            rows.append(row(passage_id, f"c{chain}", shot, status, text=text, num_pairs=rng.randint(1, 4)))
            shot += 1
            if status != "ok":
                chain, shot = chain + 1, 0
    return rows


def test_consecutive_shots_of_a_chain_are_one_text(tmp_path: Path) -> None:
    rows = [row("a/0", "c0", 0), row("a/1", "c0", 1), row("b/0", "c1", 0), row("c/0", "c1", 1), row("d/0", "c2", 0)]
    statistics, table = run(tmp_path, rows)
    assert table["passage_ids"].to_list() == [["a/0", "a/1"], ["b/0", "c/0"], ["d/0"]]
    assert table["text_id"].to_list() == ["synthesized/a/0+1", "synthesized/b/0+1", "synthesized/d/0+0"]
    assert table["license"].to_list() == [["L-a", "L-a"], ["L-b", "L-c"], ["L-d"]]
    assert [[json.loads(m)["n"] for m in ms] for ms in table["metadata"]] == [["a", "a"], ["b", "c"], ["d"]]
    assert statistics["num_rows"] == 3
    assert statistics["num_passages"] == 5
    assert statistics["num_pairs"] == 10 == table["num_pairs"].sum()
    assert sum(statistics["layouts"].values()) == 3


def test_a_restart_within_a_chain_begins_a_new_text(tmp_path: Path) -> None:
    rows = [row("a/0", "c", 0), row("a/1", "c", 1, "no_valid_pair"), row("a/2", "c", 0), row("a/3", "c", 1), row("b/0", "c", 0)]
    _, table = run(tmp_path, rows)
    assert table["passage_ids"].to_list() == [["a/0"], ["a/1"], ["a/2", "a/3"], ["b/0"]]
    assert table["layout"].to_list()[1] == "raw"


def test_passages_without_pairs_of_a_document_stay_one_raw_text(tmp_path: Path) -> None:
    rows = [
        row("a/0", "c0", 0, "no_valid_pair"),
        row("a/1", "c1", 0, "engine_error"),
        row("a/2", "c2", 0, "no_valid_pair"),
        row("b/0", "c3", 0, "no_valid_pair"),
        row("b/1", "c4", 0),
    ]
    _, table = run(tmp_path, rows)
    assert table["passage_ids"].to_list() == [["a/0", "a/1", "a/2"], ["b/0"], ["b/1"]]
    assert table["text"][0] == "".join(r["text"] for r in rows[:3])
    assert table["layout"].to_list()[:2] == ["raw", "raw"]
    assert table["num_pairs"].to_list() == [0, 0, 2]


def test_documents_that_were_not_selected_are_left_out_and_break_no_chain(tmp_path: Path) -> None:
    rows = [row("a/0", "c0", 0), row("b/0", None, None, "not_selected"), row("b/1", None, None, "not_selected"), row("c/0", "c0", 1)]
    statistics, table = run(tmp_path, rows)
    assert table["passage_ids"].to_list() == [["a/0", "c/0"]]
    assert table["license"].to_list() == [["L-a", "L-c"]]
    assert statistics["num_not_selected"] == 2


def test_every_passage_stands_once_and_no_marker_or_pair_is_lost_or_added(tmp_path: Path) -> None:
    rows = random_rows(400, seed=5)
    statistics, table = run(tmp_path, rows)
    by_id = {r["passage_id"]: r for r in rows}
    used = table.explode("passage_ids")["passage_ids"].to_list()
    assert sorted(used) == sorted(r["passage_id"] for r in rows if r["status"] != "not_selected")
    assert table["text_id"].n_unique() == table.height
    assert statistics["dropped_pairs"] == {}
    for record in table.iter_rows(named=True):
        passages = [by_id[passage_id] for passage_id in record["passage_ids"]]
        for passage in passages:
            assert record["text"].count(passage["text"].strip()) == 1
            for own in passage["pairs"]:
                assert record["text"].count(own["instruction"]) == 1
                assert own["response"] in record["text"]
        for marker in MARKERS:
            assert record["text"].count(marker) == sum(passage["text"].count(marker) for passage in passages)
        assert record["num_pairs"] == sum(len(passage["pairs"]) for passage in passages)


def test_bytes_are_the_same_again_and_however_the_input_is_cut_into_parts(tmp_path: Path) -> None:
    rows = random_rows(60, seed=1)
    for name, parts in (("one", 1), ("again", 1), ("parts", 7)):
        run(tmp_path / name, rows, parts=parts)
    contents = {(tmp_path / name / "out/data-00000.parquet").read_bytes() for name in ("one", "again", "parts")}
    assert len(contents) == 1


def test_a_texts_layout_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    rows = random_rows(60, seed=2)
    _, whole = run(tmp_path / "whole", rows)
    _, tail = run(tmp_path / "tail", [r for r in rows if r["document_id"] >= "d0030"])
    texts = dict(zip(whole["text_id"], whole["text"], strict=True))
    shared = [record for record in tail.iter_rows(named=True) if record["text_id"] in texts]
    assert len(shared) >= tail.height - 1
    assert all(texts[record["text_id"]] == record["text"] for record in shared)


def test_pairs_that_may_not_stand_are_dropped_counted_and_kept_with_the_reason(tmp_path: Path) -> None:
    bad = row("a/0", "c0", 0)
    no_option = {**pair("y", ["red", "green"]), "response": "blue", "reasoning": "Since."}
    bad["pairs"] = [pair("x"), no_option, {**pair("z"), "response": "so </END> it is"}, {**pair("m"), "instruction": "a < b, b > c?"}]
    statistics, table = run(tmp_path, [bad])
    assert statistics["dropped_pairs"] == {"answer_is_no_option": 1, "marker": 1}
    assert table["num_pairs"].to_list() == [2] == [statistics["num_pairs"]]
    dropped = pl.read_parquet(tmp_path / "out/dropped.parquet").to_dicts()
    example = {"task": None, "example_id": None, "words": None}
    assert dropped[0] == {"passage_id": "a/0", **no_option, "reason": "answer_is_no_option", **example}
    assert dropped[1]["response"] == "so </END> it is"
    assert dropped[1]["reason"] == "marker"
    assert not any(word in table["text"][0] for word in ("blue", "</END>", "Instruction y?"))


def test_an_answer_that_no_option_is_right_needs_options_to_speak_of(tmp_path: Path) -> None:
    own = row("a/0", "c0", 0)
    own["pairs"] = [
        {**pair(name, options), "response": "None of these."}
        for name, options in (("x", ["red"]), ("y", ["red", "green"]), ("z", ["", "red"]))
    ]
    statistics, table = run(tmp_path, [own])
    assert statistics["dropped_pairs"] == {"answer_is_no_option": 2}
    assert "Instruction y?" in table["text"][0]


@pytest.fixture(scope="session")
def contamination(tmp_path_factory: pytest.TempPathFactory) -> ContaminationIndex:
    """An index of one example."""
    folder = tmp_path_factory.mktemp("index")
    text = "Which of the seven hills of Rome lies closest to the river that runs through the old city?\nAventine\nCaelian"
    write_index([EvaluationExample("rome", "rome-7", text)], ngram_words=8, shortest=4, out=folder)
    return ContaminationIndex.read(folder)


def contaminated(name: str) -> dict[str, Any]:
    return {**pair(name), "instruction": "Say which of the seven hills of Rome lies closest to the river."}


def test_contaminated_pairs_are_dropped_and_kept_with_what_they_overlap(tmp_path: Path, contamination: ContaminationIndex) -> None:
    own = row("a/0", "c0", 0, num_pairs=3)
    own["pairs"][1] = contaminated("y")
    statistics, table = run(tmp_path, [own, row("a/1", "c0", 1)], contamination=contamination)
    assert statistics["dropped_pairs"] == {"contaminated": 1}
    assert statistics["contaminated_pairs"] == {"rome": 1}
    assert statistics["num_pairs"] == 4
    assert table["passage_ids"].to_list() == [["a/0", "a/1"]]
    assert "Rome" not in table["text"][0]
    (dropped,) = pl.read_parquet(tmp_path / "out/dropped.parquet").to_dicts()
    assert (dropped["passage_id"], dropped["task"], dropped["example_id"]) == ("a/0", "rome", "rome-7")
    assert dropped["words"].startswith("which of the seven hills of rome")
    assert {name: dropped[name] for name in own["pairs"][1]} == own["pairs"][1]
    statistics, _ = run(tmp_path, [own, row("a/1", "c0", 1)])
    assert statistics["dropped_pairs"] == statistics["contaminated_pairs"] == {}


def test_a_passage_that_loses_all_pairs_stays_raw_once_and_breaks_the_text(tmp_path: Path, contamination: ContaminationIndex) -> None:
    rows = [row("a/0", "c", 0), row("a/1", "c", 1), row("a/2", "c", 2), row("b/0", "c", 3), row("b/1", "c", 4, "no_valid_pair")]
    rows[1]["pairs"] = [contaminated("x"), contaminated("y")]
    rows[3]["pairs"] = [{**pair("y", ["red", "green"]), "response": "blue"}]
    statistics, table = run(tmp_path, rows, contamination=contamination)
    assert table["passage_ids"].to_list() == [["a/0"], ["a/1"], ["a/2"], ["b/0", "b/1"]]
    assert table["text"].to_list()[1::2] == [rows[1]["text"], rows[3]["text"] + rows[4]["text"]]
    assert table["layout"].to_list()[1::2] == ["raw", "raw"]
    assert statistics["num_emptied_passages"] == 2


def test_what_is_dropped_does_not_depend_on_the_neighbours(tmp_path: Path, contamination: ContaminationIndex) -> None:
    rows = random_rows(300, seed=8)  # more than are screened at once
    planted = [own for own in rows if own["status"] == "ok"][::7]
    for own in planted:
        own["pairs"][-1] = contaminated(own["passage_id"])
    statistics, _ = run(tmp_path, rows, contamination=contamination)
    assert statistics["dropped_pairs"] == {"contaminated": len(planted)}
    assert pl.read_parquet(tmp_path / "out/dropped.parquet")["passage_id"].to_list() == [own["passage_id"] for own in planted]
    assert statistics["num_pairs"] == sum(len(own["pairs"]) for own in rows) - len(planted)


def test_an_empty_shard_gives_an_empty_table(tmp_path: Path) -> None:
    statistics, table = run(tmp_path, [row("a/0", None, None, "not_selected")])
    assert statistics["num_rows"] == table.height == 0
    assert table.columns == ["text_id", "text", "passage_ids", "num_pairs", "layout", "license", "metadata"]


def test_a_document_that_is_not_clean_is_an_error(tmp_path: Path) -> None:
    run(tmp_path, [row("a/0", "c0", 0)])
    pl.DataFrame([row("z/0", "c0", 0)], schema_overrides={"pairs": PAIRS}).write_parquet(tmp_path / "pairs-0.parquet")
    with pytest.raises(ValueError, match="document z has passages"):
        augment([tmp_path / "pairs-0.parquet"], [tmp_path / "clean.parquet"], Layouts(), pair_set="synthesized", out=tmp_path / "out")


def test_golden_texts(tmp_path: Path, golden: Callable[[str, object], None]) -> None:
    rows = random_rows(120, seed=3)
    for number, own in enumerate(r["pairs"] for r in rows if r["pairs"]):
        own[0] |= {
            "options": [own[0]["response"], "another", "a third"] if number % 2 else [],
            "reasoning": "Thus." if number % 3 else None,
        }
    _, table = run(tmp_path, rows)
    golden("augmented_texts", hashlib.sha256("\0".join(table["text"]).encode()).hexdigest()[:16])


def test_tuning_pairs_that_may_not_stand_in_a_text_do_not(tmp_path: Path) -> None:
    pairs = [pair("a"), {**pair("b", ["red", "green"]), "response": "blue"}, {**pair("c"), "response": "<QUE> it"}]
    rows = [{"example_id": f"e{n}", "split": "train", "context": "Context.\n", "pairs": pairs[n:]} for n in range(2)]
    path = tmp_path / "data-00000.parquet"
    pl.DataFrame(rows, schema_overrides={"pairs": PAIRS}).write_parquet(path)
    (_, first), (_, second) = lay_out_tuning(path, Layouts())
    assert "response a" in first
    assert "blue" not in first
    assert "<QUE>" not in first
    assert second == "Context.\n"


def test_tuning_examples_are_laid_out_by_split(tmp_path: Path) -> None:
    examples = [
        {
            "example_id": f"e{n}",
            "dataset": "d",
            "split": "held_out" if n % 5 == 0 else "train",
            "context": f"Context {n}.",
            "pairs": [pair(str(n))],
        }
        for n in range(20)
    ]
    path = tmp_path / "data-00000.parquet"
    pl.DataFrame(examples, schema_overrides={"pairs": PAIRS}).write_parquet(path)
    train = list(lay_out_tuning(path, Layouts()))
    assert [example_id for example_id, _ in train] == [f"e{n}" for n in range(20) if n % 5]
    for example_id, text in train:
        assert f"Context {example_id[1:]}." in text
        assert f"response {example_id[1:]}" in text
    assert [example_id for example_id, _ in lay_out_tuning(path, Layouts(), split="held_out")] == ["e0", "e5", "e10", "e15"]
