"""Scores along a training, from score tables made by hand."""

from pathlib import Path

import polars as pl
import pytest

from instpt_assets.evaluation.curves import CURVE_SCHEMA, curves
from instpt_assets.evaluation.report import build_report
from instpt_assets.evaluation.scores import CheckpointScores, Score, write_scores

ARMS = ("vanilla", "instruct")


def accuracy(arm: str, seed: int, step: int) -> float:
    """After instruction tuning's step: `instruct` rises faster, its seeds lie 0.02 apart."""
    return 0.25 + (0.004 if arm == "instruct" else 0.002) * step + 0.02 * seed * (arm == "instruct")


def score(value: float) -> CheckpointScores:
    return CheckpointScores((Score("mmlu", "acc", value, 0.01, 5, 100, "v1", "lm-eval"),), ())


def tables(folder: Path, kept: tuple[int, ...]) -> list[Path]:
    """Scores before and after an instruction tuning of 100 steps, of which some checkpoints were kept."""
    found = []
    for arm in ARMS:
        for seed in (0, 1):
            stages = {
                "pretrained": [("pretrained_checkpoint/checkpoint", 500, score(accuracy(arm, seed, 0)))],
                "tuned": [
                    *((f"instruction_tuned_checkpoint/checkpoint-{step}", step, score(accuracy(arm, seed, step))) for step in kept),
                    ("instruction_tuned_checkpoint/checkpoint", 100, score(accuracy(arm, seed, 100))),
                ],
            }
            for stage, rows in stages.items():
                out = folder / f"{arm}-{seed}-{stage}"
                out.mkdir(parents=True)
                write_scores(rows, arm=arm, seed=seed, out=out)
                found.append(out / "data-00000.parquet")
    return found


def test_the_curve_of_instruction_tuning_begins_with_the_pretrained_model(tmp_path: Path) -> None:
    points = curves(tables(tmp_path, (20, 50)), ARMS)
    assert [(p.stage, p.arm, p.step) for p in points] == [("instruction_tuned", arm, step) for arm in ARMS for step in (0, 20, 50, 100)]
    for point in points:
        seeds = [accuracy(point.arm, seed, point.step) for seed in (0, 1)]
        assert (point.lowest, point.highest, point.num_seeds) == (min(seeds), max(seeds), 2)
        assert point.value == pytest.approx(sum(seeds) / 2)


def test_the_report_draws_the_curves_and_keeps_their_points(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert build_report(tables(tmp_path, (20, 50)), arms=ARMS, out=tmp_path / "out")["curve_points"] == 8
    assert pl.read_parquet(tmp_path / "out/curves.parquet").schema == CURVE_SCHEMA
    assert 5_000 < (tmp_path / "out/scores_over_instruction_tuning.png").stat().st_size < 100_000
    assert not (tmp_path / "out/scores_over_pretraining.png").exists()
    page = (tmp_path / "out/report.html").read_text()
    assert "<h2>Scores along instruction tuning</h2>" in page and page.count("data:image/png;base64,") == 2
    assert "scores_over_instruction_tuning.png" in (tmp_path / "out/report.md").read_text()


def test_last_checkpoints_alone_are_no_curve(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert build_report(tables(tmp_path, ()), arms=ARMS, out=tmp_path / "out")["curve_points"] == 0
    assert not list((tmp_path / "out").glob("scores_over_*")) and not (tmp_path / "out/curves.parquet").exists()
