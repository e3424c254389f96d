"""The phrasings of rule-based pairs: the bundled ones are sound and varied, bad ones are refused with their place."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from instpt_assets.synthesis.rule_based_phrasings import FAMILIES, OPTIONS, PHRASINGS, RulePhrasingError, load_rule_phrasings


@pytest.fixture
def content() -> dict[str, Any]:
    """What the bundled file says."""
    loaded: dict[str, Any] = yaml.safe_load(PHRASINGS.read_text(encoding="utf-8"))
    return loaded


def load(folder: Path, content: object) -> Any:
    path = folder / "phrasings.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    load_rule_phrasings.cache_clear()
    return load_rule_phrasings(path)


def test_every_family_has_several_phrasings() -> None:
    phrasings = load_rule_phrasings()
    assert set(phrasings.instructions) == set(FAMILIES)
    assert min(map(len, [*phrasings.instructions.values(), phrasings.relation_options])) >= 5
    # Where nothing of the passage stands in the instruction, the wording alone tells pairs apart.
    assert min(len(phrasings.instructions[family]) for family in ("title", "gist")) >= 10


def test_the_digest_is_of_what_the_file_says_not_of_its_layout(tmp_path: Path, content: dict[str, Any]) -> None:
    bundled = load_rule_phrasings().digest
    assert load(tmp_path, content).digest == bundled
    content["title"].append("What is the title?")
    assert load(tmp_path, content).digest != bundled


@pytest.mark.parametrize(
    ("family", "entry", "complaint"),
    [
        ("reason", "Why?", "expected {statement}"),
        ("reason", "{statement} {statement}", "expected {statement}, once each"),
        ("reason", "{statement} {cause}", "expected {statement}"),
        ("reason", "{statement", "malformed template"),
        ("reason", "{statement!r}", "expected {statement}"),
        ("title", "{statement}", "expected no placeholder"),
        ("title", "<QUE>", "angle bracket"),
        ("title", " A title?", "blank space"),
        ("title", 7, "expected text, not int"),
        (OPTIONS, ["a", "b"], "three options"),
        (OPTIONS, ["a", "b", "B"], "the same"),
        (OPTIONS, ["a", "b", 3], "expected text, not int"),
    ],
)
def test_a_bad_entry_is_refused_by_its_place(tmp_path: Path, content: dict[str, Any], family: str, entry: object, complaint: str) -> None:
    content[family].append(entry)
    with pytest.raises(RulePhrasingError) as error:
        load(tmp_path, content)
    assert f"phrasings.yaml, {family}, entry {len(content[family])}" in str(error.value) and complaint in str(error.value)


def test_a_family_too_many_too_few_or_empty_and_an_entry_twice_are_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    for changed, complaint in (
        ({**content, "titles": ["A title?"]}, "missing or unknown families: titles"),
        ({name: entries for name, entries in content.items() if name != "gist"}, "missing or unknown families: gist"),
        ({**content, "gist": []}, "gist: no entries"),
        ({**content, "gist": ["Sum up.", "Sum up."]}, "entry 2 'Sum up.': the same as entry 1"),
        ({**content, "gist": "Sum up."}, "each with a list"),
        (["Sum up."], "expected families"),
    ):
        with pytest.raises(RulePhrasingError, match=complaint):
            load(tmp_path, changed)
    (tmp_path / "broken.yaml").write_text("gist: [")
    with pytest.raises(RulePhrasingError, match="not readable as YAML"):
        load_rule_phrasings(tmp_path / "broken.yaml")
