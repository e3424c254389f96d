"""The judge of the synthesizer: its measures by hand, and a whole run with a tiny model."""

from pathlib import Path

import polars as pl
import pytest

from instpt_assets.evaluation.synthesizer_quality import QUALITY_SCHEMA, Judged, judge_synthesizer, load_generator, measure, token_f1
from instpt_assets.synthesis.prompt import Pair

CONTEXT = "The chairman, Ada Holm, resigned in March. Profits rose."


def test_token_f1_counts_shared_words() -> None:
    assert token_f1("Ada Holm resigned", "ada holm.") == pytest.approx(2 * 2 / 5)
    assert token_f1("the the", "the") == pytest.approx(2 / 3)
    assert token_f1("", "Ada") == 0.0
    assert token_f1("+", "+") == 1.0
    assert token_f1("+", "-") == 0.0


def test_measures_are_means_over_contexts_and_pairs() -> None:
    good = Pair("Which chairman resigned in March?", "Ada Holm")
    bad = Pair("Which chairman resigned in March?", "Bo Lind")
    judged = [
        Judged("1", "news", CONTEXT, (good, Pair("Who?", "Ada")), ["Ada Holm", "nobody"], (good, bad)),
        Judged("2", "tales", CONTEXT, (good,), ["Ada"], ()),
    ]
    rows = {(row["metric"], row["dataset"]): row for row in measure(judged)}
    assert rows["response_f1", "news"]["value"] == 0.5
    assert rows["response_f1", "all"]["value"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert rows["response_f1", "all"]["num_examples"] == 3
    assert rows["valid_share", "all"]["value"] == 0.5
    assert rows["pairs_per_context", "all"]["value"] == 1.0
    assert rows["supported_share", "all"]["value"] == 0.5
    assert rows["grounded_share", "all"]["value"] == 0.5
    assert rows["gold_similarity", "news"]["value"] == pytest.approx((1 + 10 / 14) / 2)
    assert rows["supported_share", "tales"] == {
        "metric": "supported_share",
        "dataset": "tales",
        "value": None,
        "stderr": None,
        "num_examples": 0,
    }


def test_batched_generation_equals_generation_one_by_one(tiny_checkpoint: Path) -> None:
    prompts = [[0, 40, 41, 42], [0, 50], [0, 60, 61, 62, 63, 64, 65]]
    batched, window = load_generator(tiny_checkpoint, device="cpu", batch_size=8, pad_id=1)
    alone, _ = load_generator(tiny_checkpoint, device="cpu", batch_size=1, pad_id=1)
    assert window == 128
    assert batched(prompts, 6) == alone(prompts, 6)


def test_a_run_writes_the_table_and_unpicked_samples(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instpt_assets.evaluation.synthesizer_quality.MAX_PAIRS_TOKENS", 24)
    pair = {"instruction": "Who <b>resigned</b>?", "response": "Ada", "options": ["Ada", "Bo"], "reasoning": None}
    rows = [
        {"example_id": f"{n}", "dataset": "news" if n % 2 else "tales", "split": split, "context": context, "pairs": [pair]}
        for n, (split, context) in enumerate(
            [("held_out", "Ada left."), ("held_out", "Bo came."), ("train", "Ada came."), ("held_out", "x" * 900)]
        )
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "data-00000.parquet")
    out = tmp_path / "out"
    out.mkdir()
    statistics = judge_synthesizer(tiny_checkpoint, [tmp_path / "data-00000.parquet"], out=out, batch_size=4)
    assert (statistics["contexts"], statistics["num_too_long"]) == (2, 1)
    table = pl.read_parquet(out / "data-00000.parquet")
    assert table.schema == QUALITY_SCHEMA
    assert table["dataset"].unique().sort().to_list() == ["all", "news", "tales"]
    samples = (out / "samples.md").read_text()
    assert "> Ada left." in samples
    assert "Ada came." not in samples
    assert "<b>" not in samples
