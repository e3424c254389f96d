"""The report from score tables made by hand."""

import math
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.evaluation.comparison import compare, shown
from instpt_assets.evaluation.report import COMPARISON_SCHEMA, build_report
from instpt_assets.evaluation.scores import CheckpointScores, Example, Score, not_finite, write_scores


def _tables(folder: Path, *, version: str = "v1") -> list[Path]:
    """Two arms, two seeds; the accuracy of `instruct` is 0.5 higher on the same four examples, its bits per byte 0.2 lower."""
    tables = []
    for arm, gain in (("vanilla", 0), ("instruct", 2)):
        for seed in (0, 1):
            right = [float(i < 1 + gain) for i in range(4)]
            scores = (
                Score("quiz", "acc", sum(right) / 4, 0.25, 0, 4, version if arm == "instruct" else "v1", "lm-eval"),
                Score("quiz", "acc_norm", sum(right) / 4, 0.25, 0, 4, "v1", "lm-eval"),
                Score("text", "bits_per_byte", 2.0 + 0.1 * seed - 0.1 * gain, None, 0, 4, "v1", "transformers"),
            )
            examples = tuple(Example("quiz", str(i), "acc_norm", "q", "t", "a", value) for i, value in enumerate(right))
            out = folder / f"{arm}-{seed}"
            out.mkdir(parents=True)
            early = CheckpointScores((Score("quiz", "acc_norm", 0.0, 0.0, 0, 4, "v0", "lm-eval"),), ())
            found = [
                ("pretrained_checkpoint/checkpoint-1", 1, early),
                ("pretrained_checkpoint/checkpoint", 9, CheckpointScores(scores, examples)),
            ]
            write_scores(found, arm=arm, seed=seed, out=out)
            tables.append(out / "data-00000.parquet")
    return tables


def test_rows_hold_means_over_seeds_of_last_checkpoints_and_differences_to_the_first_arm(tmp_path: Path) -> None:
    rows = {(r.arm, r.metric): r for r in compare(_tables(tmp_path), ["vanilla", "instruct"])}
    assert rows["instruct", "acc_norm"].value == 0.75
    assert rows["vanilla", "acc_norm"].difference is None
    assert rows["instruct", "acc_norm"].difference == 0.5
    # d_i are 0, 1, 1, 0: sqrt((1/3) / 4); unpaired (acc has no records): sqrt(2) * 0.25
    assert rows["instruct", "acc_norm"].difference_stderr == pytest.approx((1 / 12) ** 0.5)
    assert rows["instruct", "acc"].difference_stderr == pytest.approx(2**0.5 / 4)
    # No errors over examples: the seeds' alone, sqrt(0.005 / 2) each
    assert rows["instruct", "bits_per_byte"].stderr == pytest.approx(0.05)
    assert rows["instruct", "bits_per_byte"].difference == pytest.approx(-0.2)


def test_scores_without_a_value_are_left_out_and_listed(tmp_path: Path) -> None:
    tables = {}
    for arm in ("vanilla", "instruct"):
        scores = (
            Score("quiz", "acc", 0.5, math.nan, 0, 1, "v1", "lm-eval"),
            Score("text", "perplexity", math.inf if arm == "vanilla" else 9.0, None, 0, 1, "v1", "lm-eval"),
            Score("text", "f1", math.nan, math.nan, 0, 1, "v1", "lm-eval"),
        )
        found = [("pretrained_checkpoint/checkpoint", 9, CheckpointScores(scores, (Example("quiz", "0", "acc", "q", "t", "a", 0.5),)))]
        (tmp_path / arm).mkdir()
        assert write_scores(found, arm=arm, seed=0, out=tmp_path / arm) == (1 if arm == "vanilla" else 2)
        left_out = {"pretrained_checkpoint/checkpoint: text/f1": "nan"}
        assert not_finite(found) == left_out | ({"pretrained_checkpoint/checkpoint: text/perplexity": "inf"} if arm == "vanilla" else {})
        tables[arm] = tmp_path / arm / "data-00000.parquet"
    assert pl.read_parquet(tables["vanilla"])["stderr"].to_list() == [None]
    rows = {(r.arm, r.metric): r for r in compare(tables.values(), ["vanilla", "instruct"])}
    assert rows.keys() == {("vanilla", "acc"), ("instruct", "acc"), ("instruct", "perplexity")}
    assert rows["instruct", "acc"].difference == 0 and rows["instruct", "perplexity"].difference is None
    (tmp_path / "report").mkdir()
    assert build_report([*tables.values()], arms=["vanilla", "instruct"], out=tmp_path / "report")["num_rows"] == 3


def test_the_report_shows_one_metric_a_task_and_marks_what_is_better(tmp_path: Path) -> None:
    tables = _tables(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    statistics = build_report(tables[::-1], arms=["vanilla", "instruct"], out=out)
    assert statistics == {"num_rows": 6, "arms": 2, "tasks": 2, "clear_differences": 1, "curve_points": 4}
    assert pl.read_parquet_schema(out / "data-00000.parquet") == COMPARISON_SCHEMA
    text = (out / "report.md").read_text()
    assert "| arm | quiz (acc_norm ↑, n = 4) | text (bits_per_byte ↓, n = 4) |" in text
    assert "| **instruct** | 75.0 ± 25.0 | 1.850 ± 0.050 |" in text
    assert "| **instruct** | +50.0 ± 28.9 | **-0.200 ± 0.071** |" in text
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert 'class="better">-0.200 ± 0.071' in page
    assert "http" not in page
    assert 1_000 < (out / "scores.png").stat().st_size < 100_000
    terminal = (out / "table.txt").read_text().splitlines()
    assert terminal[0] == "After pre-training"
    assert terminal[1].split() == ["quiz", "↑", "text", "↓"]
    assert terminal[3].split() == ["instruct", "75.0", "±", "25.0", "1.850", "±", "0.050"]


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    tables = _tables(tmp_path)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        build_report(tables, arms=["vanilla", "instruct"], out=folder)
    for name in ("data-00000.parquet", "report.md", "report.html", "scores.png"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_scores_of_different_task_versions_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different versions"):
        compare(_tables(tmp_path, version="v2"), ["vanilla", "instruct"])


def test_an_unknown_arm_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="arm 'instruct' is none of vanilla"):
        compare(_tables(tmp_path), ["vanilla"])


def test_the_metric_that_a_task_names_is_shown_or_refused(tmp_path: Path) -> None:
    rows = compare(_tables(tmp_path), ["vanilla", "instruct"])
    assert {r.metric for r in shown(rows, {}) if r.task == "quiz"} == {"acc_norm"}
    assert {r.metric for r in shown(rows, {"quiz": "acc"}) if r.task == "quiz"} == {"acc"}
    with pytest.raises(ValueError, match="quiz has no finite scores of metric 'nonsense': name one of acc, acc_norm, or none"):
        shown(rows, {"quiz": "nonsense"})
