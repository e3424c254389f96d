"""Which texts hold words of an evaluation example: everything exact, however it is printed, and nothing that is a template or a collision."""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from instpt_assets.corpus.contamination import MAX_SHOWN_WORDS, ContaminationIndex
from instpt_assets.corpus.contamination_index import EvaluationExample, write_index
from instpt_assets.corpus.hashed_words import split_words

WORDS = [f"{first}{second}" for first in ("ba", "ke", "lo", "mi", "nu", "pra", "sti") for second in ("ton", "ver", "xal", "dim", "rog")]
PASSAGE = "The mitochondrion is where most of a cell\u2019s adenosine triphosphate is made; it has two membranes and a genome of its own (Fig. 2)."


def sentence(seed: object, num_words: int) -> str:
    draw = random.Random(str(seed))
    return " ".join(draw.choices(WORDS, k=num_words))


def index(folder: Path, examples: list[EvaluationExample], ngram_words: int = 13, shortest: int = 8) -> ContaminationIndex:
    folder.mkdir(exist_ok=True)
    write_index(examples, ngram_words=ngram_words, shortest=shortest, out=folder)
    return ContaminationIndex.read(folder)


def test_an_example_is_found_in_any_case_punctuation_and_white_space_and_told_with_its_words(tmp_path: Path) -> None:
    found = index(tmp_path, [EvaluationExample("biology", "7", PASSAGE), EvaluationExample("music", "1", sentence("music", 40))])
    retyped = PASSAGE.upper().replace(" ", "\n ").replace(";", " -- ").replace("\u2019", "'").replace("FIG", "\ufb01g")  # a ligature
    texts = [
        "nothing of it",
        f"Before it: {retyped} And behind it.",
        sentence("music", 40),
        "",
        "the mitochondrion is where most of a cell",
    ]
    overlaps = found.find(texts)
    assert [overlap and (overlap.task, overlap.example_id) for overlap in overlaps] == [None, ("biology", "7"), ("music", "1"), None, None]
    assert overlaps[1] is not None and overlaps[1].words == " ".join(split_words(PASSAGE))
    assert found.find(texts) == [overlap for text in texts for overlap in found.find([text])]


def test_words_of_two_neighbouring_texts_are_no_overlap(tmp_path: Path) -> None:
    found = index(tmp_path, [EvaluationExample("biology", "7", PASSAGE)], ngram_words=13)
    words = split_words(PASSAGE)
    assert found.find([" ".join(words[:12]), " ".join(words[12:24])]) == [None, None]
    assert found.find([" ".join(words[:13])]) != [None]


def test_an_example_is_found_wherever_it_stands_in_a_long_text(tmp_path: Path) -> None:
    found = index(tmp_path, [EvaluationExample("task", "0", sentence("planted", 13))])
    filler = sentence("filler", 120_000)  # about three blocks
    for place in (0, 1 << 18, 258_000, 262_100, len(filler)):
        (overlap,) = found.find([f"{filler[:place]} {sentence('planted', 13)} {filler[place:]}"])
        assert overlap is not None and overlap.example_id == "0", place
    assert found.find([filler]) == [None]


def test_what_all_prompts_share_is_no_evidence_but_every_example_is_found(tmp_path: Path) -> None:
    template = "Read the following question with care and answer it with the letter of exactly one of the options given:"
    examples = [EvaluationExample("task", str(n), f"{template}\n{sentence(n, 20)}\nAnswer:") for n in range(60)]
    examples.append(EvaluationExample("task", "bare", f"{template}\nAnswer:"))  # no n-gram of it is its own
    found = index(tmp_path, examples)
    assert found.find([f"A page of instructions. {template} Thank you."]) == [None]
    assert None not in found.find([example.text for example in examples])
    assert [o and o.example_id for o in found.find([sentence(n, 20) for n in (0, 59)])] == ["0", "59"]


def test_a_passage_that_many_questions_ask_about_stays_evidence(tmp_path: Path) -> None:
    found = index(tmp_path, [EvaluationExample("reading", str(n), f"{PASSAGE}\n{sentence(n, 9)}") for n in range(30)])
    assert found.find([f"A textbook says: {PASSAGE}"]) != [None]


def test_a_short_question_counts_as_a_whole_and_a_shorter_one_is_listed(tmp_path: Path) -> None:
    question = "Which gas do plants take up in daylight?"  # eight words
    found = index(tmp_path, [EvaluationExample("short", "0", question), EvaluationExample("short", "1", "What is seven times eight?")])
    assert found.find(["(" + question.lower() + ")", "which gas do plants take up in the daylight", "What is seven times eight?"])[1:] == [
        None,
        None,
    ]
    assert found.find([question]) != [None]
    assert pl.read_parquet(tmp_path / "skipped.parquet")["example_id"].to_list() == ["1"]


def test_equal_hashes_of_different_words_are_no_overlap(tmp_path: Path) -> None:
    examples = [EvaluationExample("task", "0", sentence("a", 13)), EvaluationExample("task", "1", sentence("b", 13))]
    found = index(tmp_path, examples)
    assert None not in found.find([example.text for example in examples])
    # As if the two had each other's hash.
    entries = np.load(tmp_path / "ngrams-13.npy")
    np.save(tmp_path / "ngrams-13.npy", np.stack([entries[0], entries[1][::-1]]))
    assert ContaminationIndex.read(tmp_path).find([example.text for example in examples]) == [None, None]


def test_a_long_overlap_is_told_in_part(tmp_path: Path) -> None:
    text = sentence("long", 300)
    (overlap,) = index(tmp_path, [EvaluationExample("task", "0", text)]).find([text])
    assert overlap is not None and overlap.words.split() == text.split()[:MAX_SHOWN_WORDS]


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="materialize evaluation_examples again"):
        ContaminationIndex.read(tmp_path)
