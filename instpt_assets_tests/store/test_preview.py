"""Previews show text as it is."""

from pathlib import Path

import polars as pl

from instpt_assets.store.preview import LINE_BREAK, PREVIEW, PREVIEW_CHARACTERS, preview_table, write_preview


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


def test_a_table_without_a_page_of_its_own_has_a_preview_among_the_logs(tmp_path: Path) -> None:
    for name in ("bare", "with_page"):
        (tmp_path / name).mkdir()
        pl.DataFrame({"text": ["a"]}).write_parquet(tmp_path / name / "data-00000.parquet")
    (tmp_path / "with_page" / "report.md").write_text("# Report")
    for name in ("bare", "with_page"):
        write_preview(tmp_path / name)
    assert (tmp_path / "bare" / PREVIEW).read_text() == preview_table(tmp_path / "bare" / "data-00000.parquet")
    assert not (tmp_path / "with_page" / PREVIEW).exists()
