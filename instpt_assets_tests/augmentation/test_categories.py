"""Task categories: each rule on pairs as writers write them, and on task sets whose kind is known."""

import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from instpt_assets.augmentation.categories import CATEGORIES, OTHER, SCENARIOS, category, scenario
from instpt_assets.augmentation.layouts import Pair

PASSAGE = "Garlic lowered cholesterol in 50 patients in Oslo. It was given by Dr. Berg in 1999, because statins had failed."

EXAMPLES = [
    ("translation", Pair("Translate the first sentence into French.", "L'ail a réduit le cholestérol.")),
    ("code", Pair("Write a function that returns the mean dose.", "def mean(): ...")),
    ("question_generation", Pair("Write a question that this passage answers.", "Who gave the garlic?")),
    ("word_to_text", Pair("Compose a sentence about medicine using these words: garlic, dose.", "A dose of garlic.")),
    ("word_to_text", Pair("Which statement of the text brings these terms together: cause, effect, method?", "Garlic lowered it.")),
    ("completion", Pair('The text has the sentence "The aim was to compare the effects of garlic." Write the one after it; what comes next?', "It was given.")),
    ("completion", Pair("Continue the text: The effect of garlic was compared with that of statins in patients.", "It was better.")),
    ("keywords", Pair("What are the keywords of this text?", "garlic, cholesterol")),
    ("title", Pair("Suggest a headline for the article.", "Garlic works")),
    ("title", Pair("If you had to name this passage, what would you call it?", "Garlic")),
    ("summary", Pair("In short, what does the passage conclude?", "Garlic works.")),
    ("summary", Pair("Summarize the passage.", "Garlic lowers cholesterol.")),
    ("summary", Pair("What is the main idea of the text?", "Garlic lowers cholesterol.")),
    ("paraphrase", Pair("Paraphrase the first sentence.", "Cholesterol went down.")),
    ("inference", Pair("Premise: it rained. Does the street stay dry?", "contradiction", ("entailment", "neutral", "contradiction"))),
    ("inference", Pair("What can be inferred about statins?", "They did not work.")),
    ("sentiment", Pair("What is the tone of the text?", "positive", ("positive", "negative", "neutral"))),
    ("fact_check", Pair("True or false: garlic was given in 1999.", "true")),
    ("yes_no", Pair("Did garlic help?", "Yes, it did.")),
    ("yes_no", Pair("Did the statins help the patients", "no")),
    ("classification", Pair("Which topic is this about, sports or medicine?", "medicine")),
    ("completion", Pair("Fill in the blank: Garlic lowered ____.", "cholesterol")),
    ("coreference", Pair('In the second sentence, what does "It" refer to?', "garlic")),
    ("definition", Pair("What is meant by statins?", "drugs")),
    ("definition", Pair("What is a statin?", "a drug")),
    ("comparison", Pair("Is garlic better than statins?", "garlic")),
    ("comparison", Pair("What was the reported difference between the groups?", "no significant difference")),
    ("calculation", Pair("How many more patients were there than doctors?", "49")),
    ("time", Pair("When was it given?", "1999")),
    ("numeric", Pair("How many patients were there?", "50")),
    ("numeric", Pair("The study had a size of", "about 50 patients")),
    ("place", Pair("Where did the patients live?", "Oslo")),
    ("person_or_organisation", Pair("Who gave the garlic?", "Dr. Berg")),
    ("cause_and_effect", Pair("Why was garlic given?", "statins had failed")),
    ("hypothetical", Pair("What would the doctor have done if statins had worked?", "nothing")),
    ("order", Pair("What happened first, the failure or the garlic?", "the failure")),
    ("purpose", Pair("What was the aim of the treatment?", "to help")),
    ("advice", Pair("What should patients eat?", "garlic")),
    ("evidence", Pair("Which sentence shows that it was given in 1999?", "It was given by Dr. Berg in 1999")),
    ("list", Pair("Name two things that were tried.", "garlic and statins")),
    ("list", Pair("Mention the people.", "- Dr. Berg\n- the patients")),
    ("method", Pair("How was the garlic given?", "by Dr. Berg")),
    ("explanation", Pair("Explain the role of Dr. Berg.", "He gave garlic.")),
    ("multiple_choice", Pair("What was lowered?", "cholesterol", ("cholesterol", "sugar", "salt"))),
    ("extractive_question", Pair("What had failed?", "statins")),
    ("open_question", Pair("What was lowered?", "fats in the blood")),
    (OTHER, Pair("garlic", "fats in the blood")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "pair"), EXAMPLES, ids=[pair.instruction for _, pair in EXAMPLES])
def test_a_pair_is_of_the_category_that_its_form_says(name: str, pair: Pair) -> None:
    assert category(pair, PASSAGE) == name


def test_every_category_can_be_reached() -> None:
    assert {name for name, _ in EXAMPLES} == {*(known.name for known in CATEGORIES), OTHER}
    assert len({known.name for known in CATEGORIES}) == len(CATEGORIES)


def test_scenarios_are_told_by_options_and_reasoning() -> None:
    pairs = [Pair("q", "a"), Pair("q", "a", (), "so"), Pair("q", "a", ("a", "b")), Pair("q", "a", ("a", "b"), "so")]
    assert tuple(map(scenario, pairs)) == SCENARIOS


@pytest.mark.parametrize("text", ["1" * 50_000, "a " * 50_000, "1. x\n" * 20_000, "what are " * 10_000, "$" * 50_000 + "1", "-\n" * 50_000])
def test_long_and_odd_texts_take_no_long_time(text: str) -> None:
    start = time.perf_counter()
    category(Pair(text, text, (text,), text), "passage")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("dataset", "kinds", "least"),
    [
        ("scitldr", {"title", "summary"}, 0.99),
        ("strategyqa", {"yes_no"}, 0.99),
        ("evidence_inference", {"comparison"}, 0.9),
        ("xquad", {"extractive_question", "time", "numeric", "place", "person_or_organisation"}, 0.75),
    ],
)
def test_task_sets_of_a_known_kind_are_told(shared_data: Path, dataset: str, kinds: set[str], least: float) -> None:
    rows = pl.read_ndjson(shared_data / "tuning" / f"{dataset}.jsonl.zst").head(100).rows(named=True)
    found = Counter(
        category(Pair(pair["question"], pair["answer"], tuple(pair["options"] or ()), pair["rationale"]), row["context"])
        for row in rows
        for pair in row["pairs"][:4]
    )
    assert sum(found[name] for name in kinds) >= least * found.total(), found
