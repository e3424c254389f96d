"""Previews in the UI show text as it is."""

from pathlib import Path

import polars as pl

from instpt_assets.defs.previews import LINE_BREAK, PREVIEW_CHARACTERS, preview_table


def test_a_preview_shows_text_as_it_is_and_cuts_what_is_long(tmp_path: Path) -> None:
    path = tmp_path / "data-00000.parquet"
    pl.DataFrame({"text": ["__init__ | <QUE> *args*\n\nnext", "x" * 1000], "pairs": [["a"], []]}).write_parquet(path)
    head, rule, text, pairs = preview_table(path).splitlines()
    assert head.count("|") == rule.count("|") == text.count("|") == pairs.count("|") == 4
    assert not set("<*_") & set(text.removeprefix("| **text** |"))
    assert f"{LINE_BREAK}next" in text
    assert "x" * PREVIEW_CHARACTERS + "…" in text and "x" * (PREVIEW_CHARACTERS + 1) not in text


def test_an_empty_table_has_a_preview(tmp_path: Path) -> None:
    path = tmp_path / "data-00000.parquet"
    pl.DataFrame({"text": []}, schema={"text": pl.String}).write_parquet(path)
    assert preview_table(path) == "no rows"
