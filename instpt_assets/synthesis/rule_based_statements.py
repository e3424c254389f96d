"""Inference and paraphrase: how statements of a passage are related, and what it says in other words, defines or abbreviates."""

import re
from collections.abc import Iterator

from instpt_assets.augmentation.draws import Draws
from instpt_assets.synthesis.rule_based_found import Found, Passage, shuffled
from instpt_assets.synthesis.rule_based_sentences import as_sentence, capitalized, is_phrase, leans, stands_alone

_RELATIONS = (
    r"Therefore|Thus|Hence|Accordingly|It follows that|This (?:implies|suggests|indicates|means) that|We (?:therefore|thus) conclude that",
    r"However|In contrast|By contrast|Conversely|On the other hand|Nevertheless|Nonetheless|On the contrary",
    r"Moreover|Furthermore|In addition|Additionally|Likewise|Besides",
)
"""Openings of a conclusion, a contrast and an addition."""
_CONCLUSION, _CONTRAST = range(2)
_OPENING = re.compile("|".join(f"(?P<relation{n}>(?:{words}),? )" for n, words in enumerate(_RELATIONS)))
_OPENING_WORDS = frozenset(
    {"In", "By", "On", "It", "This", "We"} | {w for words in _RELATIONS for w in re.findall(r"[A-Z]\w+(?=\||$)", words)}
)
_PURPOSE = re.compile(
    r"(?:The|This|Our)(?: \w+){0,2} (?:objective|aim|purpose|goal)\b|"
    r"(?:The|This|Our)(?: \w+){0,2} (?:study|trial|paper|review|work|research|investigation) (?:\w+ )?(?:aim\w*|sought|will|is to|"
    r"was (?:\w+ )?(?:conducted|designed|performed|undertaken|planned)|investigat\w+|examin\w+|evaluat\w+|assess\w+|compar\w+|explor\w+|focus\w+)\b|"
    r"(?:In (?:the|this|our)(?: \w+)? (?:study|trial|paper|review|work), we|We)(?: \w+)? (?:aim|aimed|sought|set out|investigated|examined|designed|"
    r"conducted|performed|wanted|hypothesi[sz]ed|decided|planned|undertook|evaluated|studied|tested|used|chose|compared|assessed)\b"
)
"""Openings of what authors did or wanted for a reason: no conclusion from it, whatever connective stands before."""
_BARE = re.compile(r"(?:Thus far|Hence the|Besides (?!,)|Likewise [a-z]+ing)")


def inference(passage: Passage, draws: Draws) -> Iterator[Found]:
    """Two neighbouring statements, the second begun by a connective: how they are related, or which one follows."""
    prose = passage.prose
    opened = list[tuple[int, int, str]]()
    for number, sentence in enumerate(prose.sentences):
        if sentence.split(" ", 1)[0].rstrip(",") in _OPENING_WORDS and (opening := _OPENING.match(sentence)) and prose.follows(number):
            if not _BARE.match(sentence):
                relation = next(n for n in range(len(_RELATIONS)) if opening[f"relation{n}"])
                second = capitalized(sentence[opening.end() :])
                if relation != _CONCLUSION or not _PURPOSE.match(second):
                    opened.append((number, relation, second))
    for number, relation, second in shuffled(opened, draws, "inference"):
        if not (prose.stands_alone(number - 1) and stands_alone(second)):
            continue
        used, first = (number - 1, number), prose.sentences[number - 1]
        kind = draws.share(f"inference/{number}")
        if relation == _CONCLUSION and kind < 0.5:
            yield Found("conclusion", {"statement": first}, second, used)
        elif relation == _CONTRAST and kind < 0.5:
            yield Found("contrast", {"statement": first}, second, used)
        else:
            yield Found("relation", {"first": first, "second": second}, "", used, relation=relation)


_IN_OTHER_WORDS = re.compile(
    r"(?:In other words|That is(?: to say)?|Put differently|Put simply|Stated differently|To put it (?:differently|simply|another way)), "
)
_NAMELY = re.compile(
    r"^(?P<beginning>[^;:]{25,}?)(?: \((?:i\.e\.|that is|namely),? ?(?P<inside>[^()]{6,})\)(?=[,.;])|,? (?:i\.e\.|"
    r"namely),? (?P<behind>[^;:()]{6,})\.$)"
)
_DEFINED = re.compile(
    r"^(?P<term>(?:(?:The|An?) )?(?:term )?[A-Za-z][^,;:.()]{2,60}?) (?:(?:is|was|are|were)(?: \w+ly)? defined as|refers? to|"
    r"denotes?) (?P<meaning>[^;:]{12,})\.$"
)
_ABBREVIATED = re.compile(r"\((?P<short>[A-Z][A-Za-z]?[A-Z]{1,4})s?\)")
_NO_TERM = re.compile(
    r"\b(?:this|that|these|those|it|they|we|which|who|what|when|if|no|not|and|he|she)\b|^(?:[Ii]n|[Aa]t|[Oo]n|[Ff]or|[Aa]ll|[Ee]ach|"
    r"[Tt]here) ",
    re.IGNORECASE,
)
_SMALL = frozenset("of and the for in to on a an with by".split())


def paraphrase(passage: Passage, draws: Draws) -> Iterator[Found]:
    """What the text says in other words, makes precise, defines, or abbreviates."""
    prose = passage.prose
    text = prose.text
    rewords = any(hint in text for hint in ("In other words", "That is", "Put ", "To put it", "Stated"))
    hints = [hint for hint in ("i.e.", "that is", "namely", "efined as", "efers to", "efer to", "denote") if hint in text]
    shorts = "(" in text
    for number in shuffled(range(len(prose.sentences)), draws, "paraphrase") if rewords or hints or shorts else ():
        sentence = prose.sentences[number]
        if rewords and (opening := _IN_OTHER_WORDS.match(sentence)):
            other = capitalized(sentence[opening.end() :])
            if prose.follows(number) and prose.stands_alone(number - 1) and stands_alone(other):
                yield Found("restatement", {"statement": prose.sentences[number - 1]}, other, (number - 1, number))
            continue
        if any(map(sentence.__contains__, hints)) and prose.stands_alone(number):
            if found := _NAMELY.match(sentence):
                said = found["inside"] or found["behind"]
                # A single comma begins a clause of its own more often than a list.
                if said.count(" ") and said.count(",") != 1 and is_phrase(said.removeprefix("that ")) and not leans(found["beginning"]):
                    yield Found("specification", {"beginning": found["beginning"]}, as_sentence(said), (number,))
                    continue
            if (
                (found := _DEFINED.match(sentence))
                and not _NO_TERM.search(found["term"])
                and is_phrase(found["term"])
                and found["term"].count(" ") < 7
            ):
                yield Found("definition", {"term": _lowered(found["term"], text)}, as_sentence(found["meaning"]), (number,))
                continue
        if "(" in sentence:
            for short in _ABBREVIATED.finditer(sentence):
                if long := _long_form(sentence[: short.start()], short["short"]):
                    yield Found("abbreviation", {"term": short["short"]}, capitalized(long), (number,))
                    break


def _long_form(before: str, short: str) -> str | None:
    """The words before an abbreviation whose first letters it is, small words apart."""
    words = before.split()
    letters = list(short.casefold())
    taken = list[str]()
    while letters and words:
        word = words.pop()
        if word[0].casefold() == letters[-1]:
            letters.pop()
        elif word not in _SMALL or not taken:
            return None
        taken.append(word)
    if letters or not all(re.fullmatch(r"[A-Za-z][\w’'-]*", word) for word in taken):  # noqa: RUF001
        return None
    return " ".join(reversed(taken))


def _lowered(term: str, text: str) -> str:
    """A term as it stands inside a sentence: its first word small if it is an article, or if the text has it so elsewhere."""
    first, blank, rest = term.partition(" ")
    small = first.lower()
    return small + blank + rest if small in ("the", "a", "an") or re.search(rf"\b{re.escape(small)}\b", text) else term
