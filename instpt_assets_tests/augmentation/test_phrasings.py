"""Phrasings: the bundled ones are sound, and bad entries are refused with their place."""

import shutil
from pathlib import Path

import pytest

from instpt_assets.augmentation import phrasings
from instpt_assets.augmentation.phrasings import FAMILIES, PhrasingError, load_family, load_phrasings

BUNDLED = Path(phrasings.__file__).parent / "phrasings"


def family_file(folder: Path, family: str, content: str) -> Path:
    path = folder / f"{family}.yaml"
    path.write_text(content, encoding="utf-8")
    return path


def test_bundled_families_are_large_enough() -> None:
    counts = load_phrasings().counts()
    assert counts["question_answer"] >= 70
    assert counts["question_answer_options"] >= 45
    assert counts["question_answer_reasoning"] >= 200
    assert counts["text_lead_ins"] >= 100
    assert counts["comprehension_lead_ins"] >= 140
    assert counts["none_of_these"] >= 80
    assert min(counts.values()) >= 10


def test_composed_entries_are_every_combination(tmp_path: Path) -> None:
    path = family_file(
        tmp_path,
        "text_lead_ins",
        'compose: [{pattern: "<verb> this <noun>:\\n{text}", parts: {verb: [Read, See], noun: [text, page]}}]',
    )
    assert load_family(path) == ("Read this text:\n{text}", "Read this page:\n{text}", "See this text:\n{text}", "See this page:\n{text}")


@pytest.mark.parametrize(
    ("family", "entry", "complaint"),
    [
        ("question_answer", '"{question} no reply"', "missing placeholder {answer}"),
        ("question_answer", '"{question} {answer} {options}"', "unknown placeholder {options}"),
        ("question_answer", '"{question} {answer} {answer}"', "a placeholder stands twice"),
        ("question_answer", '"{question} {answer"', "malformed template"),
        ("question_answer", '"{question} {answer} {}"', "malformed placeholder"),
        ("question_answer", '"{question} {answer!r}"', "malformed placeholder"),
        ("question_answer", '"{question} {answer.upper}"', "malformed placeholder"),
        ("question_answer", '"{question} {answer}."', "punctuation right behind {answer}"),
        ("question_answer", '"<QUE> {question} {answer}"', "angle bracket"),
        ("question_answer", '"{question} {answer} "', "blank space"),
        ("question_answer", "7", "expected text, not int"),
        ("text_lead_ins", '""', "empty"),
        ("comprehension_lead_ins", '"About {text}"', "unknown placeholder {text}"),
        ("question_item_names", '"-"', "expected one of"),
        ("option_item_names", '"{number}{letter}"', "at most one"),
        ("dialog_names", "[Ann, Ann]", "two different names"),
        ("dialog_names", "[Ann]", "expected two names"),
        ("dialog_names", '["{first}", Ann]', "no placeholders"),
    ],
)
def test_bad_entry_is_refused_by_file_and_place(tmp_path: Path, family: str, entry: str, complaint: str) -> None:
    path = family_file(tmp_path, family, f"entries:\n  - {entry}\n")
    with pytest.raises(PhrasingError) as error:
        load_family(path)
    assert f"{family}.yaml, entry 1" in str(error.value)
    assert complaint in str(error.value)


def test_duplicates_are_refused_across_entries_and_compositions(tmp_path: Path) -> None:
    content = 'entries: ["Read: {text}"]\ncompose: [{pattern: "<verb>: {text}", parts: {verb: [See, Read]}}]'
    with pytest.raises(PhrasingError, match=r"compose block 1 .*the same as entry 1"):
        load_family(family_file(tmp_path, "text_lead_ins", content))


def test_none_of_these_duplicates_are_found_by_their_normal_form(tmp_path: Path) -> None:
    with pytest.raises(PhrasingError, match="entry 2"):
        load_family(family_file(tmp_path, "none_of_these", 'entries: ["None of these", "none  of these."]'))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("entries: [", "not readable as YAML"),
        ("- a list", "expected a mapping"),
        ("about: nothing else", "no entries"),
        ('compose: [{pattern: "<a> {text}", parts: {b: [x]}}]', "slots"),
        ('compose: ["{text}"]', "expected a pattern and its parts"),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(PhrasingError, match=complaint):
        load_family(family_file(tmp_path, "text_lead_ins", content))


def test_a_folder_needs_exactly_the_families(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path, dirs_exist_ok=True)
    assert load_phrasings(tmp_path).counts() == load_phrasings().counts()
    family_file(tmp_path, "text_leadins", "entries: []")
    load_phrasings.cache_clear()
    with pytest.raises(PhrasingError, match="no family is called text_leadins"):
        load_phrasings(tmp_path)
    (tmp_path / "text_leadins.yaml").unlink()
    (tmp_path / "conclusions.yaml").unlink()
    with pytest.raises(PhrasingError, match=r"conclusions\.yaml"):
        load_phrasings(tmp_path)


def test_every_family_is_described() -> None:
    for family in FAMILIES:
        assert (BUNDLED / f"{family}.yaml").read_text(encoding="utf-8").startswith("about: ")
