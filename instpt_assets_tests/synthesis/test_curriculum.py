"""The synthesizer's training sequences: phases in order, loss where something is asked for, the prompt's own encoding."""

import hashlib
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from instpt_assets.mixture.sequences import NO_LOSS
from instpt_assets.recipe.synthesis import Curriculum
from instpt_assets.synthesis.curriculum import random_continuations, repeated_spans, short_examples
from instpt_assets.synthesis.prompt import MARKERS, Pair, PromptFormat
from instpt_assets.synthesis.tuning_collection import EXAMPLES
from instpt_assets.synthesis.tuning_sequences import TuningSequences

TEXT = (
    "The parser reads the file and returns a list of rows. The reader must be closed after the last row is read by the caller. "
    "Every row contains the fields of one record in the order of the header line. If the header is missing, the first row is used instead. "
    "The writer accepts any object that has a write method and a close method. By default, the fields are separated by commas."
)


@pytest.fixture
def prompt() -> PromptFormat:
    """Every byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>", *MARKERS])
    return PromptFormat(tokenizer)


def write_collection(folder: Path, num_examples: int = 30) -> Path:
    rows = [
        {
            "example_id": f"{dataset}/{i}",
            "dataset": dataset,
            "split": "held_out" if i == 0 else "train",
            "context": f"{dataset} context {i}",
            "pairs": [Pair(f"Which {dataset} number?", str(i)).to_struct()],
            "license": None,
        }
        for dataset in ("first", "second")
        for i in range(num_examples)
    ]
    pl.DataFrame(rows, schema=pl.Schema(pl.from_arrow(EXAMPLES.empty_table()).schema)).write_parquet(folder / "data-00000.parquet")
    return folder


def sequences(collection: Path, prompt: PromptFormat, **changes) -> TuningSequences:
    arguments = {
        "vocab_size": 259,
        "sequence_length": 1024,
        "token_budget": 1024 * 40,
        "curriculum": Curriculum(span_copy_tokens=1024 * 4, rote_tokens=1024 * 6),
        "texts": [TEXT] * 3,
        **changes,
    }
    return TuningSequences(collection, prompt, **arguments)


def test_repeated_spans_put_the_loss_on_what_stood_before():
    ids, labels = repeated_spans(256, 8, 4096, np.random.default_rng(0))
    assert ids.min() >= 8
    assert (labels != NO_LOSS).mean() > 0.4
    for i in np.flatnonzero(labels != NO_LOSS):
        assert labels[i] == ids[i]
        assert any(np.array_equal(ids[j - 1 : j + 1], ids[i - 1 : i + 1]) for j in range(1, i))


def test_random_continuations_answer_with_what_follows_the_question_in_the_context():
    words = [f"word{i}" for i in range(100)]
    context, pairs = random_continuations(words, random.Random(0))
    assert len(pairs) > 1
    for pair in pairs:
        last = pair.instruction.rstrip("?").split()[-1]
        assert f"{last} {pair.response}" in context


def test_short_examples_hold_random_words_rote_tasks_and_questions():
    made = [example for seed in range(30) for example in short_examples([TEXT] * 2, random.Random(seed))]
    own = [(context, pairs) for context, pairs in made if context.split()[0] in TEXT and " ".join(context.split()) in TEXT]
    rote = [pair for _, pairs in own for pair in pairs if pair.instruction.startswith(("What comes after", "Fill in the blank"))]
    assert 0 < len(own) < len(made)
    assert 0 < len(rote) < sum(len(pairs) for _, pairs in own)
    assert all(pair.response in TEXT for pair in rote)


def test_phases_follow_one_another_within_the_budget(tmp_path, prompt):
    source = sequences(write_collection(tmp_path), prompt)
    assert len(source) == 40
    assert [phase["num_sequences"] for phase in source.statistics["phases"]] == [4, 6, 30]
    texts = [prompt.decode(source.sequence(i)[0].tolist()) for i in range(40)]
    assert not any("<CON>" in text for text in texts[:4])
    assert all("<CON>" in text and " context " not in text for text in texts[4:10])
    assert all(" context " in text for text in texts[10:])
    with pytest.raises(IndexError):
        source.sequence(40)


def test_only_pairs_carry_loss_and_examples_stay_within_one_dataset(tmp_path, prompt):
    source = sequences(write_collection(tmp_path), prompt, curriculum=None)
    for i in range(len(source)):
        ids, labels, _ = source.sequence(i)
        assert ids.shape == labels.shape == (1024,)
        learned = prompt.decode(labels[labels != NO_LOSS].tolist())
        assert "context" not in learned
        assert learned.count("<QUE>") == prompt.decode(ids.tolist()).count("<CON>") > 1
        assert ("first" in learned) != ("second" in learned)
        assert np.array_equal(ids[labels != NO_LOSS], labels[labels != NO_LOSS])


def test_sequences_hold_exactly_what_the_prompt_encodes(tmp_path, prompt):
    ids, *_ = sequences(write_collection(tmp_path), prompt, curriculum=None).sequence(0)
    shots = [
        prompt.encode_context(f"{dataset} context {i}") + prompt.encode_pairs([Pair(f"Which {dataset} number?", str(i))])
        for dataset in ("first", "second")
        for i in range(1, 30)
    ]
    rest = ids.tolist()
    while rest and rest[0] != 0:
        shot = next(shot for shot in shots if rest[: len(shot)] == shot)
        rest = rest[len(shot) :]
    assert not any(rest)


def test_held_out_contexts_never_appear(tmp_path, prompt):
    source = sequences(write_collection(tmp_path), prompt, curriculum=None)
    text = "".join(prompt.decode(source.sequence(i)[0].tolist()) for i in range(len(source)))
    assert "context 1" in text
    assert "context 0 " not in text


def test_the_same_arguments_give_the_same_sequences(tmp_path, prompt):
    write_collection(tmp_path)
    one, two, other = (sequences(tmp_path, prompt, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one.sequence(i).ids, two.sequence(i).ids) for i in range(len(one)))
    assert any(not np.array_equal(one.sequence(i).ids, other.sequence(i).ids) for i in range(len(one)))


def test_examples_that_fit_nowhere_are_counted_and_none_at_all_is_an_error(tmp_path, prompt):
    source = sequences(write_collection(tmp_path), prompt, curriculum=None, sequence_length=64)
    assert source.statistics["num_contexts_left_out"] == 0
    with pytest.raises(ValueError, match="raise sequence_length"):
        sequences(tmp_path, prompt, curriculum=None, sequence_length=16)


def test_a_curriculum_that_takes_the_whole_budget_is_an_error(tmp_path, prompt):
    with pytest.raises(ValueError, match="lower its tokens"):
        sequences(write_collection(tmp_path), prompt, token_budget=1024 * 10)


def test_training_sequences_are_as_they_were(tmp_path, prompt, golden):
    source = sequences(write_collection(tmp_path), prompt)
    ids = np.stack([np.stack(source.sequence(index)[:2]) for index in range(len(source))])
    golden("synthesizer_sequences", hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()[:16])
