"""What a synthesizer from a random start sees before the tuning data: the phases that make it copy early.

1. Repeated random spans: nothing but copying.
2. Rote tasks ("what comes after …", fill in the blank) and rule-made questions on short passages of the pinned shards.

Loss lies on what is asked for, as in tuning.
"""

import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from instpt_assets.synthesis.prompt import Pair
from instpt_assets.synthesis.questions import ask, split_sentences

NO_LOSS = -100
RANDOM_SHARE, ROTE_SHARE = 0.3, 0.3
"""Shares of the short passages whose words are drawn at random, and that get rote tasks rather than questions."""
_ASKED = ("What comes after", "What is", "What does", "What happens if", "When is")
_MIN_SHORT_WORDS, _MAX_SHORT_WORDS = 25, 70


def repeated_spans(num_tokens: int, first_id: int, vocab_size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A sequence of random tokens of which spans come again and again.

    Args:
        num_tokens: Length L.
        first_id: Lowest token id to use (above the special tokens).
        vocab_size: One above the highest.
        rng: Draws the tokens and the spans.

    Returns:
        Ids and labels, both int64 [L]; labels are -100 but on the repeated tokens, from each span's second on (its first cannot be known).
    """
    num_random = min(num_tokens // 3, int(rng.integers(40, 120)))
    ids = rng.integers(first_id, vocab_size, num_tokens)
    labels = np.full(num_tokens, NO_LOSS, dtype=np.int64)
    position = num_random
    while position < num_tokens:
        length = min(int(rng.integers(5, 24)), num_tokens - position, num_random)
        start = int(rng.integers(0, num_random - length + 1))
        ids[position : position + length] = ids[start : start + length]
        labels[position + 1 : position + length] = ids[position + 1 : position + length]
        position += length
    return ids, labels


def random_continuations(words: Sequence[str], rng: random.Random) -> tuple[str, list[Pair]]:
    """A context of different words in random order, and pairs that ask what follows a few of them, in their order: an answer has nothing but copying to go by."""
    context = rng.sample(words, min(len(words), rng.randint(25, 80)))
    pairs: list[Pair] = []
    position = rng.randint(0, 6)
    while (after := position + rng.randint(1, 5)) + (told := rng.randint(1, 7)) <= len(context):
        question = " ".join(context[position:after])
        pairs.append(Pair(f"{rng.choice(_ASKED)} {question}?", " ".join(context[after : after + told])))
        position = after + told + rng.randint(0, 10)
    return " ".join(context), pairs


def short_passages(texts: Iterable[str], rng: random.Random) -> Iterator[str]:
    """Runs of whole sentences of `texts`, 25 to 70 words each, in order."""
    for text in texts:
        run: list[str] = []
        goal = rng.randint(_MIN_SHORT_WORDS, _MAX_SHORT_WORDS)
        for sentence in split_sentences(text):
            run.append(sentence)
            words = sum(len(part.split()) for part in run)
            if words >= goal:
                if words <= 2 * _MAX_SHORT_WORDS:
                    yield "\n\n".join(run)
                run, goal = [], rng.randint(_MIN_SHORT_WORDS, _MAX_SHORT_WORDS)


def short_examples(texts: Iterable[str], rng: random.Random) -> Iterator[tuple[str, list[Pair]]]:
    """Short contexts with two pairs or more: each short passage of `texts` with rule-made questions, with rote tasks, or instead a context of random words of them."""
    words: dict[str, None] = {}
    for passage in short_passages(texts, rng):
        words |= dict.fromkeys(passage.split())
        draw = rng.random()
        context, pairs = passage, ask(passage, rng)
        if draw < RANDOM_SHARE:
            context, pairs = random_continuations(list(words), rng)
        elif draw < RANDOM_SHARE + ROTE_SHARE:
            pairs = list(_rote(passage, rng))
        if len(pairs) > 1:
            yield context, pairs


def _rote(passage: str, rng: random.Random) -> Iterator[Pair]:
    asked: set[str] = set()
    for sentence in split_sentences(passage):
        words = sentence.split()
        if len(words) < 8:
            continue
        pair = _continue(words, rng) if rng.random() < 0.5 else _fill_in(words, rng)
        if pair.instruction not in asked:
            asked.add(pair.instruction)
            yield pair


def _continue(words: list[str], rng: random.Random) -> Pair:
    shown, told = rng.randint(3, 5), rng.randint(2, 8)
    start = rng.randint(0, len(words) - shown - 2)
    after = words[start + shown : start + shown + told]
    return Pair(f"What comes after {' '.join(words[start : start + shown])}?", " ".join(after))


def _fill_in(words: list[str], rng: random.Random) -> Pair:
    window = words[(start := rng.randint(0, max(0, len(words) - 16))) : start + 16]
    length = rng.randint(1, 4)
    gap = rng.randint(2, len(window) - length - 1)
    return Pair(f"Fill in the blank: {' '.join([*window[:gap], '____', *window[gap + length :]])}", " ".join(window[gap : gap + length]))
