"""Tasks built from documentation: right answers are right, and nothing but the content tells them."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import pytest

from instpt_assets.corpus.documentation import DocumentedObject, Parameter
from instpt_assets.evaluation.documentation_tasks import ask, build_tasks

WORDS = ["cold", "warm", "long", "wide", "flat", "deep", "thin", "loud", "dark", "pale", "dull", "kind"]


def _objects() -> list[DocumentedObject]:
    found = []
    for n, first in enumerate(WORDS):
        for second in WORDS[:4]:
            name = f"pack.{first}_{second}"
            parameters = (
                Parameter("data", "array_like", None, f"The {first} values that are read."),
                Parameter(f"{second}_axis", f"int or {first}", None, f"Where the {second} ones lie. More follows."),
                Parameter("untyped", "", None, "Left out."),
            )
            prose = f"Return a {first} and {second} array.\n\nThe name {second}_axis is read first, then {second}_axis again."
            found.append(DocumentedObject(name, "function", f"Return a {first} and {second} array number {n:02}.", prose, parameters, None))
    return found


def test_the_same_documents_in_any_order_give_the_same_tasks() -> None:
    objects = _objects()
    assert build_tasks(objects, num_examples=20, seed=1) == build_tasks(objects[::-1], num_examples=20, seed=1)
    assert build_tasks(objects, num_examples=20, seed=1) != build_tasks(objects, num_examples=20, seed=2)


def test_choices_are_distinct_balanced_over_positions_and_of_like_length() -> None:
    for task in build_tasks(_objects(), num_examples=40, seed=0):
        if task.config["output_type"] != "multiple_choice":
            continue
        assert len(task.examples) == 40
        assert set(Counter(example["gold"] for example in task.examples).values()) == {10}
        assert all(len(set(example["choices"])) == 4 for example in task.examples)
        longest = sum(max(e["choices"], key=len) == e["choices"][e["gold"]] for e in task.examples)
        assert longest < 30


def test_questions_are_answered_by_their_passage() -> None:
    (name, kind) = ask(_objects()[0])[:2]
    assert name.text == 'Which parameter of pack.cold_cold is described as "The cold values that are read"?'
    assert (name.answer, name.rivals) == ("data", ("cold_axis",))
    assert kind.text == "Of which type is the parameter data of pack.cold_cold?"
    assert kind.answer == "array_like"
    assert "- data (array_like): The cold values that are read." in kind.passage
    assert "untyped" not in kind.passage


def test_completions_end_before_a_name_that_stood_before() -> None:
    tasks = {task.name: task for task in build_tasks(_objects(), num_examples=10, seed=0)}
    for example in tasks["documentation_names"].examples:
        assert example["target"].endswith("_axis")
        assert example["prompt"].endswith(", then")
        assert example["target"] in example["prompt"]


def test_solved_examples_are_of_other_objects() -> None:
    tasks = {task.name: task for task in build_tasks(_objects(), num_examples=30, seed=0)}
    task = tasks["documentation_answers"]
    assert task.num_fewshot == 2
    for example in task.examples:
        assert example["prompt"].count("\nAnswer:") == 3
        assert example["prompt"].count(example["id"].split("/")[0] + ":") == 1
        assert example["prompt"].endswith("\nAnswer:")


def test_too_little_documentation_is_refused() -> None:
    with pytest.raises(ValueError, match="hold out more"):
        build_tasks(_objects()[:1], num_examples=5, seed=0)


def test_tasks_are_as_they_were(golden: Callable[[str, object], None]) -> None:
    tasks = [asdict(task) for task in build_tasks(_objects(), num_examples=20, seed=1)]
    golden("documentation_tasks", hashlib.sha256(json.dumps(tasks, sort_keys=True, default=str).encode()).hexdigest()[:16])
