"""What holds for any pairs, whatever stands in them: nothing is lost, nothing stands twice, no marker comes from anywhere but a passage."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instpt_assets.augmentation.augment import augment
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets.synthesis.prompt import RESERVED

PAIRS = pl.List(pl.Struct({"instruction": pl.String, "response": pl.String, "options": pl.List(pl.String), "reasoning": pl.String}))
EVEN = Layouts(dialog=0.2, numbered=0.2, inline_few_shot=0.2, next_turn_dialog=0.2, pairs_first=0.5)
PIECES = [
    *RESERVED,
    "<",
    ">",
    "</",
    "<QUE",
    "END>",
    "{question}",
    "{",
    "}",
    "\n",
    "\n\n",
    " ",
    "\t",
    "None of the above.",
    "a",
    "É",
    "日本",
    "A.",
    "7 %",
]

words = st.lists(st.one_of(st.sampled_from(PIECES), st.text(st.characters(codec="utf-8"), max_size=4)), max_size=6).map("".join)


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, Any]:
    """A pair; where it has options, the answer is one of them, says that none is right, or is something else."""
    options = draw(st.lists(words, max_size=4))
    answers = [words.map(lambda text: f"r{text}r"), st.just("None of the above.")]
    response = draw(st.one_of(*answers, *([st.sampled_from(options)] * 3 if options else [])))
    return {"instruction": f"I{draw(words)}?", "response": response, "options": options, "reasoning": draw(st.none() | words)}


@st.composite
def shards(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Passages of some documents in chains, with what tells each passage and instruction from all others in front."""
    rows: list[dict[str, Any]] = []
    for document in range(draw(st.integers(1, 3))):
        selected = draw(st.sampled_from([True, True, True, False]))
        for position in range(draw(st.integers(1, 4))):
            passage_id = f"d{document}/{position:05d}"
            found = draw(st.lists(pairs(), max_size=4)) if selected else []
            for number, own in enumerate(found):
                own["instruction"] = f"[{passage_id}-{number}] {own['instruction']}"
            status = ("ok" if found else "no_valid_pair") if selected else "not_selected"
            text = f"{draw(st.sampled_from(['', '  ']))}[{passage_id}] {draw(words)}.\n"
            chain, shot = (None, None) if not selected else (f"c{len(rows) // 3}", len(rows) % 3)
            rows.append(
                {
                    "passage_id": passage_id,
                    "document_id": f"d{document}",
                    "chain_id": chain,
                    "shot": shot,
                    "text": text,
                    "status": status,
                    "pairs": found,
                }
            )
    return rows


def augmented(rows: list[dict[str, Any]], layouts: Layouts) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Statistics, texts and dropped pairs."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        pl.DataFrame(rows, schema_overrides={"pairs": PAIRS, "chain_id": pl.String, "shot": pl.Int32}).write_parquet(
            folder / "pairs.parquet"
        )
        ids = list(dict.fromkeys(row["document_id"] for row in rows))
        pl.DataFrame({"document_id": ids, "metadata": ["{}"] * len(ids)}).write_parquet(folder / "clean.parquet")
        statistics = augment([folder / "pairs.parquet"], [folder / "clean.parquet"], layouts, pair_set="p", out=folder)
        texts = pl.read_parquet(folder / "data-00000.parquet").to_dicts()
        return statistics, texts, pl.read_parquet(folder / "dropped.parquet").to_dicts()


def held(pair: Mapping[str, Any]) -> list[str]:
    """What of a pair must stand in its text: with options the answer may be an item's name."""
    options = {option.strip() for option in pair["options"]} - {""}
    return [pair["instruction"].strip(), *(options if len(options) > 1 else [pair["response"].strip()]), (pair["reasoning"] or "").strip()]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(rows=shards(), seed=st.integers(0, 1000))
def test_whatever_the_pairs_hold_texts_are_whole(rows: list[dict[str, Any]], seed: int) -> None:
    statistics, texts, dropped = augmented(rows, EVEN.model_copy(update={"seed": seed}))
    by_id = {row["passage_id"]: row for row in rows}
    gone = Counter((pair["passage_id"], pair["instruction"]) for pair in dropped)
    used = [passage_id for text in texts for passage_id in text["passage_ids"]]
    assert used == [row["passage_id"] for row in rows if row["status"] != "not_selected"]
    assert max(gone.values(), default=1) == 1
    for text in texts:
        passages = [by_id[passage_id] for passage_id in text["passage_ids"]]
        kept = [pair for passage in passages for pair in passage["pairs"] if not gone[passage["passage_id"], pair["instruction"]]]
        assert text["num_pairs"] == len(kept)
        assert (text["layout"] == "raw") == (not kept)
        if not kept:
            assert text["text"] == "".join(passage["text"] for passage in passages)
        for passage in passages:
            assert text["text"].count(passage["text"].rstrip()) == 1
            assert text["text"].count(f"[{passage['passage_id']}]") == 1
        for pair in kept:
            assert text["text"].count(pair["instruction"].strip()) == 1
            assert all(part in text["text"] for part in held(pair))
        for marker in RESERVED:
            assert text["text"].count(marker) == sum(passage["text"].count(marker) for passage in passages)
    assert statistics["num_pairs"] + sum(statistics["dropped_pairs"].values()) == sum(len(row["pairs"]) for row in rows)
    assert sum(statistics["dropped_pairs"].values()) == len(dropped)
    for pair in dropped:
        values = [pair["instruction"], pair["response"], *pair["options"], pair["reasoning"] or ""]
        assert pair["reason"] == "answer_is_no_option" or any(marker in value for value in values for marker in RESERVED)
