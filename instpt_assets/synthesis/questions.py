"""Instruction-response pairs made from English documentation and prose by rules, so that the answer is known.

`ask` gives the pairs of a passage in the order of its sentences; every answer but yes and no stands in the passage word for word. The idea of mining
tasks from raw text by patterns is AdaptLLM's (PAPER.md section 7); the rules (`question_rules`) are made for reference documentation.
"""

import random
import re

from instpt_assets.synthesis.prompt import Pair
from instpt_assets.synthesis.question_rules import NO, YES, ask_about, ask_about_name, ask_about_topic

_LIST_MARK = re.compile(r"^(?:[-*•]|\d+[.)]|\(\w\))\s+")
_SENTENCE_END = re.compile(
    r"(?<=[\w)`\"'*\]%}][.?!])\s+(?=[A-Z`\"'(*:\[-])|\n\s*\n|(?<=[.:!?)])\n|\n(?=[-*•] |\d+[.)] |\*{0,2}\w[\w.]*(?:, \*{0,2}\w[\w.]*)*(?: \([^\n]+\))?: )"
)
"""Behind `.`, `?` or `!` where a new sentence can begin, at blank lines, and before list items and entries (`name (type): …`)."""
_HEADING = re.compile(r"^(?P<title>[A-Z][a-z]+(?: [a-z]+)?):$")
_TITLE = re.compile(r"^(?P<name>[A-Za-z_]\w*(?:\.\w+)+|[a-z]+[_A-Z]\w*)(?:\(.*\))?$")
_MAX_SENTENCE_CHARACTERS = 400
TOPIC_SHARE = 0.7
"""How often a sentence is asked about by its topic rather than by a rule of its own."""
YES_NO_SHARE = 0.08
"""How often a sentence that answers a yes-or-no question is asked one."""


def split_sentences(passage: str) -> list[str]:
    """Sentences of `passage` in order, white space unified, without list marks; a blank line or a list item's end is a sentence's end too."""
    cut = (" ".join(part.split()) for part in _SENTENCE_END.split(passage))
    return [s for s in (_LIST_MARK.sub("", part) for part in cut) if s]


def possible_pairs(passage: str) -> list[tuple[str, list[Pair]]]:
    """Each sentence of `passage`, with all pairs that rules make from it, the most telling kinds first."""
    found: list[tuple[str, list[Pair]]] = []
    name, section = "", ""
    for sentence in split_sentences(passage):
        if title := _TITLE.match(sentence):
            name = title["name"]
            continue
        if heading := _HEADING.match(sentence):
            section = heading["title"].lower()
            continue
        if len(sentence) <= _MAX_SENTENCE_CHARACTERS:
            asked = (ask_about_name(name, sentence) if name else []) + ask_about(sentence, section=section)
            found.append((sentence, [Pair(question, answer) for question, answer in asked]))
        name = ""
    return found


def ask(passage: str, rng: random.Random, *, max_pairs: int = 6) -> list[Pair]:
    """Pairs about `passage`, in the order of its sentences, no question twice (case-insensitively).

    Of a sentence one pair is taken: mostly what is said about its topic, else the most telling pair that shares words with it, or whether
    it says so. Some become multiple choice (the other options are answers from the same passage), some get reasoning (the sentence that
    the answer stands in).

    Args:
        passage: Text to ask about.
        rng: Decides which of the possible pairs are taken.
        max_pairs: At most so many; which sentences are left out is drawn.

    Returns:
        The pairs; none if no sentence fits a rule.
    """
    taken: list[tuple[str, Pair]] = []
    asked: set[str] = set()
    for sentence, pairs in possible_pairs(passage):
        pair = _choose(sentence, pairs, rng)
        if pair is not None and pair.instruction.lower() not in asked:
            asked.add(pair.instruction.lower())
            taken.append((sentence, pair))
    if len(taken) > max_pairs:
        taken = [taken[i] for i in sorted(rng.sample(range(len(taken)), max_pairs))]
    answers = [pair.response for _, pair in taken]
    return [_vary(pair, sentence, answers, rng) for sentence, pair in taken]


def _choose(sentence: str, pairs: list[Pair], rng: random.Random) -> Pair | None:
    about, yes_no = rng.random() < TOPIC_SHARE, rng.random() < YES_NO_SHARE
    topic = ask_about_topic(sentence, rng)
    telling = [pair for pair in pairs if _num_shared_words(pair.instruction, sentence) >= 2]
    if yes_no and (decided := next((pair for pair in telling if pair.response in (YES, NO)), None)):
        return decided
    if topic is not None and (about or not telling):
        return Pair(*topic)
    return telling[0] if telling else None


def _num_shared_words(question: str, sentence: str) -> int:
    """Words of four letters or more that stand in both: a question without any could be asked of every passage."""
    return len(_words(question) & _words(sentence))


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def _vary(pair: Pair, sentence: str, answers: list[str], rng: random.Random) -> Pair:
    """`pair` itself, most often; else with options or with reasoning."""
    draw = rng.random()
    if draw < 0.06 and len(pair.response.split()) <= 6:
        others = sorted({a for a in answers if a != pair.response and len(a.split()) <= 8})
        if len(others) >= 2:
            options = [pair.response, *rng.sample(others, min(3, len(others)))]
            rng.shuffle(options)
            return Pair(pair.instruction, pair.response, tuple(options))
    elif draw > 0.985 and len(sentence) < 160:
        return Pair(pair.instruction, pair.response, reasoning=f"The text says: {sentence}")
    return pair
