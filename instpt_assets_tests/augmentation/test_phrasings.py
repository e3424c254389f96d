"""Phrasings: the bundled ones are sound, and bad entries are refused with their place."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from instpt_assets.augmentation import phrasings
from instpt_assets.augmentation.phrasings import FAMILIES, PhrasingError, load_family, load_phrasings

BUNDLED = Path(phrasings.__file__).parent / "phrasings"


def family_file(folder: Path, family: str, content: str) -> Path:
    path = folder / f"{family}.yaml"
    path.write_text(content, encoding="utf-8")
    return path


# Distinct phrasings of the published code, by family.
PUBLISHED = {
    "question_answer": 73,
    "question_answer_options": 47,
    "question_answer_reasoning": 205,
    "question_answer_options_reasoning": 239,
    "numbered_questions": 11,
    "next_turn": 15,
    "inline_few_shot": 20,
    "text_lead_ins": 100,
    "comprehension_lead_ins": 168,
    "option_lead_ins": 16,
    "option_item_names": 63,
    "question_item_names": 40,
    "dialog_names": 49,
    "dialog_lead_ins": 15,
    "pairs_first_lead_ins": 42,
    "none_of_these": 82,
}


def test_no_family_is_smaller_than_the_published_one() -> None:
    counts = load_phrasings().counts()
    assert set(counts) - set(PUBLISHED) == {"conclusions"}
    assert {name: counts[name] for name, number in PUBLISHED.items() if counts[name] < number} == {}


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
        ("question_answer", '"{question}{answer}"', "nothing between {answer}"),
        ("question_answer", '"{question} {answer} "', "blank space"),
        ("question_answer", "7", "expected text, not int"),
        ("text_lead_ins", '""', "empty"),
        ("comprehension_lead_ins", '"About {text}"', "unknown placeholder {text}"),
        ("comprehension_lead_ins", '"{{Questions}}"', "a brace, which stands as it is"),
        ("question_item_names", '"-"', "expected one of"),
        ("option_item_names", '"{number}-{letter}"', "at most one"),
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


@pytest.mark.parametrize(
    ("family", "entries"),
    [
        ("none_of_these", '["None of these", "none  of these."]'),
        ("comprehension_lead_ins", '["Some questions:", "SOME  questions"]'),
        ("question_answer", '["Q: {question}\\nA: {answer}", "q: {question}\\na:  {answer}"]'),
        ("dialog_names", "[[User, Bot], [USER, bot]]"),
    ],
)
def test_entries_that_differ_in_case_blanks_or_final_punctuation_alone_are_duplicates(tmp_path: Path, family: str, entries: str) -> None:
    with pytest.raises(PhrasingError, match=r"entry 2 .*the same as entry 1"):
        load_family(family_file(tmp_path, family, f"entries: {entries}"))


@pytest.mark.parametrize(
    ("family", "entries"),
    [
        ("question_answer", '["{question} {answer}", "{question}\\n{answer}", "{question}\\n\\n{answer}"]'),
        ("option_item_names", '["{letter}.", "{letter})", "{capital}.", "{Roman}.", "{roman}."]'),
    ],
)
def test_line_breaks_and_item_names_make_a_difference(tmp_path: Path, family: str, entries: str) -> None:
    assert len(load_family(family_file(tmp_path, family, f"entries: {entries}"))) >= 3


def test_the_checker_prints_the_counts_or_the_first_fault(tmp_path: Path) -> None:
    def check(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", phrasings.__name__, *arguments], capture_output=True, text=True)

    good = check()
    assert good.returncode == 0
    assert dict(line.split() for line in good.stdout.splitlines()) == {k: str(v) for k, v in load_phrasings().counts().items()}
    shutil.copytree(BUNDLED, tmp_path, dirs_exist_ok=True)
    family_file(tmp_path, "dialog_names", "entries: [[Ann, Ben], [Ann]]")
    bad = check(str(tmp_path))
    assert bad.returncode == 1
    assert bad.stderr.startswith("error: ")
    assert "dialog_names.yaml, entry 2 ['Ann']: expected two names" in bad.stderr


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
