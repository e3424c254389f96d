"""The tasks that rules find in a passage: inference, cause and effect, paraphrase, word to text, summarization and completion.

The idea of mining tasks from raw text by connectives and titles is AdaptLLM's (PAPER.md section 7); rules and wording are our own. A task
yields what it finds in a drawn order, the caller takes as many as it wants. What a connective says is taken for true, no more: "however"
tells a contrast and no contradiction, so the options of inference are called a conclusion, a contrast and an addition.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeVar

from instpt_assets.augmentation.draws import Draws
from instpt_assets.recipe.writers import RuleTask
from instpt_assets.synthesis.rule_based_sentences import AUXILIARY, Prose, as_sentence, capitalized, is_statement, stands_alone
from instpt_assets.synthesis.support import content_words, normalise

T = TypeVar("T")

VERSION = 1
"""Raised by hand when the rules make other pairs of the same passage; part of the identity of rule-based pairs alone."""


class Passage(NamedTuple):
    """What the tasks are found in."""

    prose: Prose
    title: str | None
    """Of the document, where the passage is its first; None if there is none."""


class Found(NamedTuple):
    """A pair in the making: its instruction is a phrasing of `family`, filled."""

    family: str
    fields: Mapping[str, str]
    response: str
    sentences: tuple[int, ...] = ()
    """Those that it was made of, by number: no two pairs of a passage share one."""
    relation: int | None = None
    """Which of the options of a phrasing of `relation_options` is right."""
    others: tuple[str, ...] = ()
    """Wrong options."""


# Inference

_RELATIONS = (
    r"Therefore|Thus|Hence|Accordingly|It follows that|This (?:implies|suggests|indicates|means) that|We (?:therefore|thus) conclude that",
    r"However|In contrast|By contrast|Conversely|On the other hand|Nevertheless|Nonetheless|On the contrary",
    r"Moreover|Furthermore|In addition|Additionally|Likewise|Besides",
)
"""Openings of a conclusion, a contrast and an addition."""
_OPENING = re.compile("|".join(f"(?P<relation{n}>(?:{words}),? )" for n, words in enumerate(_RELATIONS)))
_OPENING_WORDS = frozenset(
    {"In", "By", "On", "It", "This", "We"} | {w for words in _RELATIONS for w in re.findall(r"[A-Z]\w+(?=\||$)", words)}
)
_BARE = re.compile(r"(?:Thus far|Hence the|Besides (?!,)|Likewise [a-z]+ing)")


def inference(passage: Passage, draws: Draws) -> Iterator[Found]:
    """Two neighbouring statements, the second begun by a connective: how they are related, or which one follows."""
    prose = passage.prose
    opened = list[tuple[int, int, str]]()
    for number, sentence in enumerate(prose.sentences):
        if sentence.split(" ", 1)[0].rstrip(",") in _OPENING_WORDS and (opening := _OPENING.match(sentence)) and prose.follows(number):
            if not _BARE.match(sentence):
                relation = next(n for n in range(len(_RELATIONS)) if opening[f"relation{n}"])
                opened.append((number, relation, capitalized(sentence[opening.end() :])))
    for number, relation, second in _shuffled(opened, draws, "inference"):
        if not (prose.stands_alone(number - 1) and stands_alone(second)):
            continue
        used, first = (number - 1, number), prose.sentences[number - 1]
        kind = draws.share(f"inference/{number}")
        if relation == 0 and kind < 0.5:
            yield Found("conclusion", {"statement": first}, second, used)
        elif relation == 1 and kind < 0.5:
            yield Found("contrast", {"statement": first}, second, used)
        else:
            yield Found("relation", {"first": first, "second": second}, "", used, relation=relation)


# Cause and effect

_FINITE = re.compile(rf"\b(?:{AUXILIARY}|which|who|that|whose|whether)\b")
_RESULT_OPENING = re.compile(r"(?:As a result|As a consequence|Consequently|For (?:this|these) reasons?|Because of this), ")
_REASON_OPENING = re.compile(
    r"(?:This|That|It) (?:is|was|may be|might be|could be|can be)(?: (?:\w+ly|in part))? (?:because|due to|owing to|attributable to|"
    r"explained by|the result of|a result of|a consequence of) "
)
_BECAUSE = re.compile(r"^(?P<effect>[^;:]{25,}?),? because (?!of )(?P<cause>[^;:]{12,})\.$")
_DUE_TO = re.compile(
    r"^(?P<effect>[^;:]{25,}?)(?:, (?:mainly |primarily |largely |partly |probably |possibly |likely |perhaps )?(?:due to|owing to|"
    r"because of|thanks to|as a result of)"
    r"|(?<=\w{3}ed) (?:due to|owing to)| (?:because of|as a result of|on account of)) (?P<cause>[^,;:]{4,})\.$"
)
_CAUSE_FIRST = re.compile(r"^(?P<word>Because of|Because|Due to|Owing to|As a result of) (?P<cause>[^,;:]+), (?P<effect>[^;:]+)\.$")
_LED_TO = re.compile(
    r"^(?P<cause>[A-Z][^,;:]{8,90}?) (?:(?:has|have|had) )?(?P<verb>led to|resulted in|leads to|lead to|results in|result in|"
    r"gave rise to|brought about) "
    r"(?P<effect>[^,;:]{8,})\.$"
)
_ADVERB = re.compile(r"(?:\w+ly|often|also|then|thus|still|even|soon|now|sometimes|to)$")
_LEADING_TO = re.compile(
    r"^(?P<cause>[^;:]{30,}), (?:thereby |thus )?(?:leading to|resulting in|which led to|which resulted in|"
    r"giving rise to) (?P<effect>[^,;:]{8,})\.$"
)
_HEDGE = re.compile(
    r"(?:\b(?:not|only|just|simply|partly|largely|mainly|primarily|probably|perhaps|possibly|part|likely|and|but|or|be|been|is|are|was|"
    r"were|mostly|especially|"
    r"particularly|precisely|either|being|that|than|as|both|rather|so|merely|the|a|of|to|in|by|with|for)|,)$"
)
_CAUSAL = (
    *(
        "because",
        "Because",
        "due to",
        "Due to",
        "owing to",
        "Owing to",
        "on account of",
        "thanks to",
        "attributable",
        "explained by",
        "For th",
    ),
    *("s a result", "the result of", "a result of", "consequence", "onsequently", "resulted in", "resulting in", "result in", "results in"),
    *("led to", "lead to", "leads to", "leading to", "gave rise", "giving rise", "brought about"),
)
"""What a sentence of cause and effect holds: looked for before any pattern."""


def cause_and_effect(passage: Passage, draws: Draws) -> Iterator[Found]:
    """What a sentence or its neighbour gives as a reason or as a result."""
    prose = passage.prose
    hints = [hint for hint in _CAUSAL if hint in prose.text]
    if not hints:
        return
    candidates = [number for number, sentence in enumerate(prose.sentences) if any(map(sentence.__contains__, hints))]
    for number in _shuffled(candidates, draws, "cause_and_effect"):
        found = _between_causes(prose, number) or _within_cause(prose, number, draws)
        if found is not None:
            yield found


def _between_causes(prose: Prose, number: int) -> Found | None:
    """A cause and an effect in neighbouring sentences."""
    sentence = prose.sentences[number]
    if not prose.follows(number) or not prose.stands_alone(number - 1):
        return None
    before, used = prose.sentences[number - 1], (number - 1, number)
    if opening := _RESULT_OPENING.match(sentence):
        effect = capitalized(sentence[opening.end() :])
        return Found("result", {"statement": before}, effect, used) if stands_alone(effect) else None
    if _REASON_OPENING.match(sentence) and is_statement(sentence):
        return Found("reason", {"statement": before}, sentence, used)
    return None


def _within_cause(prose: Prose, number: int, draws: Draws) -> Found | None:
    """A cause and an effect in one sentence."""
    sentence = prose.sentences[number]
    if not is_statement(sentence):
        return None
    reverse = draws.share(f"cause_and_effect/{number}") < 0.5
    if found := _BECAUSE.match(sentence):
        effect, cause = as_sentence(found["effect"]), found["cause"]
        if sentence.count(" because ") == 1 and _is_clause(effect) and _FINITE_CLAUSE.search(cause) and not _HEDGE.search(found["effect"]):
            return Found("reason", {"statement": effect}, f"Because {cause}.", (number,))
    elif found := _DUE_TO.match(sentence):
        effect, cause = as_sentence(found["effect"]), found["cause"]
        if _is_clause(effect) and _is_phrase(cause) and not _HEDGE.search(found["effect"]):
            return Found("reason", {"statement": effect}, as_sentence(sentence[found.end("effect") :]), (number,))
    elif found := _CAUSE_FIRST.match(sentence):
        effect, cause = as_sentence(found["effect"]), found["cause"]
        if found["word"] == "Because":
            cause = as_sentence(cause)
            if _is_clause(effect) and _is_clause(cause):
                if reverse:
                    return Found("result", {"statement": cause}, effect, (number,))
                return Found("reason", {"statement": effect}, f"Because {found['cause']}.", (number,))
        elif _is_clause(effect) and _is_phrase(cause):
            return Found("reason", {"statement": effect}, f"{found['word']} {cause}.", (number,))
    elif found := _LEADING_TO.match(sentence):
        cause = as_sentence(found["cause"])
        if _is_clause(cause) and _is_phrase(found["effect"]):
            return Found("result", {"statement": cause}, as_sentence(found["effect"]), (number,))
    elif found := _LED_TO.match(sentence):
        cause, effect = found["cause"], found["effect"]
        if (
            _is_phrase(cause)
            and _is_phrase(effect)
            and not _ADVERB.search(cause)
            and stands_alone(sentence)
            and 2 <= cause.count(" ") + 1 <= 14
        ):
            if reverse:
                return Found("origin", {"effect": effect}, as_sentence(cause), (number,))
            return Found("outcome", {"cause": cause}, as_sentence(effect), (number,))
    return None


_FINITE_CLAUSE = re.compile(
    rf"\b(?:{AUXILIARY}|\w{{3,}}ed|[a-z]{{3,}}s|rose|fell|grew|made|took|found|became|began|kept|came|went|said|want|need|have|make)\b"
)
_MIN_CLAUSE_WORDS = 4


def _is_clause(sentence: str) -> bool:
    """Whether a part of a sentence can be quoted as one."""
    words = sentence.count(" ") + 1
    return words >= _MIN_CLAUSE_WORDS and not _HEDGE.search(sentence[:-1]) and _may_stand(sentence)


def _may_stand(sentence: str) -> bool:
    # What is short for a sentence of its own may still be a clause.
    return stands_alone(sentence) if len(sentence) >= 40 else stands_alone(f"{sentence[:-1]} as it is here told in this text.")


def _is_phrase(text: str) -> bool:
    """Whether it is a phrase without a verb of its own, as far as words tell."""
    return (
        not _FINITE.search(text)
        and text.count(" ") < 25
        and not re.search(r"\b(?:this|that|these|those|such|it|they|as well as to)\b", text)
    )


# Paraphrase

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
    for number in _shuffled(range(len(prose.sentences)), draws, "paraphrase") if rewords or hints or shorts else ():
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
                if (
                    said.count(" ")
                    and said.count(",") != 1
                    and _is_phrase(said.removeprefix("that "))
                    and not _HEDGE.search(found["beginning"])
                ):
                    yield Found("specification", {"beginning": found["beginning"]}, as_sentence(said), (number,))
                    continue
            if (
                (found := _DEFINED.match(sentence))
                and not _NO_TERM.search(found["term"])
                and not _FINITE.search(found["term"])
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


# Word to text

_DOMAIN_WORD = re.compile(r"\b[a-z]+(?:-[a-z]+)*\b|\b[A-Z][A-Za-z-]+\b")
_MIN_WORD_LETTERS, _NUM_WORDS = 6, 4
_COMMON = frozenset(
    "although because between through without however including another several various against further whether before during following "
    "together "
    "percent million billion roughly january february april august september october november december monday tuesday wednesday thursday "
    "friday themselves therefore already usually generally especially particularly significantly respectively compared reported "
    "increased decreased showed "
    "become becomes became number higher greater remained observed according around always should people number period expected continue "
    "continued".split()
)


def word_to_text(passage: Passage, draws: Draws) -> Iterator[Found]:
    """A sentence of the text from its longest words."""
    prose = passage.prose
    for number in _shuffled(range(len(prose.sentences)), draws, "word_to_text"):
        if not prose.stands_alone(number):
            continue
        sentence = prose.sentences[number]
        first = sentence.split(" ", 1)[0]
        words = {word.casefold(): word for word in _DOMAIN_WORD.findall(sentence) if len(word) >= _MIN_WORD_LETTERS and word != first}
        longest = sorted((word for key, word in words.items() if key not in _COMMON), key=lambda word: (-len(word), word))[:_NUM_WORDS]
        if len(longest) == _NUM_WORDS and sentence.count(" ") < 35:
            chosen = _shuffled(longest, draws, f"word_to_text/{number}")
            yield Found("words", {"words": ", ".join(chosen)}, sentence, (number,))


# Summarization

_CONCLUDES = re.compile(
    r"(?:In conclusion|In summary|To summarize|To conclude|To sum up|In short|Taken together), |We (?:conclude|concluded) that "
)
_CONCLUSION_LABEL = re.compile(r"Conclusions?$")
_MAX_GIST_WORDS = 80
_TITLE_WORDS, _HEADING_WORDS = range(3, 36), range(2, 16)
_MIN_TITLE_SHARE = 0.5
_NO_HEADING = re.compile(
    r"(?:Introduction|Background|Methods?|Materials?|Results?|Discussion|Conclusions?|Abstract|Summary|References|Limitations|"
    r"Acknowledge\w+|Table|Fig|Competing|"
    r"Author|Funding|Supporting|Key |Self-Check|Review|Visit|Ethics|Availability|Abbreviations|Main |Other |General )\b|.*[|=\t<>{}]|"
    r".*\d{2}|.*[.,;:!?]$|.*\b(?:et al|https?|www)\b"
)


def summarization(passage: Passage, draws: Draws) -> Iterator[Found]:
    """A title for the text, the heading of a section, or the text's own conclusion."""
    prose = passage.prose
    if passage.title is not None and _fits(passage.title, prose.text):
        yield Found("title", {}, passage.title)
    gists = list(_gists(prose))
    headings = list(_headings(prose))
    yield from _shuffled(gists, draws, "summarization/gists")[:1]
    yield from _shuffled(headings, draws, "summarization/headings")


def _gists(prose: Prose) -> Iterator[Found]:
    for line, label in prose.labels.items():
        if _CONCLUSION_LABEL.match(label):
            own = [number for number, paragraph in enumerate(prose.paragraphs) if paragraph == line]
            response = " ".join(prose.sentences[number] for number in own)
            if own and all(is_statement(prose.sentences[number]) for number in own) and prose.stands_alone(own[0]):
                if response.count(" ") < _MAX_GIST_WORDS:
                    yield Found("gist", {}, response, tuple(own))
    for number, sentence in enumerate(prose.sentences):
        if (
            sentence[0] in "ITW"
            and (opening := _CONCLUDES.match(sentence))
            and stands_alone(said := capitalized(sentence[opening.end() :]))
        ):
            yield Found("gist", {}, said, (number,))


def _headings(prose: Prose) -> Iterator[Found]:
    starts = dict[int, int]()
    for number, line in enumerate(prose.paragraphs):
        starts.setdefault(line, number)
    for line, heading in prose.headings.items():
        below = next((starts[later] for later in range(line + 1, line + 3) if later in starts), None)
        if (
            below is None
            or _NO_HEADING.match(heading)
            or not prose.headings.keys().isdisjoint((line - 1, line + 1))
            or heading.count(" ") + 1 not in _HEADING_WORDS
        ):
            continue
        if heading[0].isupper() and prose.stands_alone(below):
            yield Found("heading", {"opening": prose.sentences[below]}, heading, (below,))


def _fits(title: str, text: str) -> bool:
    """Whether the text is about what the title names: half of its content words stand there beside the title itself."""
    if title.count(" ") + 1 not in _TITLE_WORDS or re.search(r"[|=\t\n]", title):
        return False
    words = content_words(title)
    body = set(normalise(text.replace(title, " ", 1)).split())
    return bool(words) and len(words & body) >= _MIN_TITLE_SHARE * len(words)


# Completion

_CUT = re.compile(
    r"(?:,(?= (?:but|while|although|though|which|whereas|with|without|because|where|when|including|due|so|if|even|despite|since|unless|"
    r"rather|especially|"
    r"particularly|mainly|mostly|primarily|partly|as|compared|resulting|leading) )|(?= (?:that|which|because|while|when|whereas|although|"
    r"if|by|after|before|unless|until) )) "
)
"""Where a sentence is cut, besides at its only comma: other commas may be those of a list."""
_COMMA = re.compile(r", (?!and |or )")
_MIN_BEGINNING_WORDS, _MIN_REST_WORDS, _MAX_OPTION_WORDS, _NUM_OTHERS = 6, 5, 30, 3


def completion(passage: Passage, draws: Draws) -> Iterator[Found]:
    """How a sentence ends, or which one comes next."""
    prose = passage.prose
    for number in _shuffled(range(len(prose.sentences)), draws, "completion"):
        if not prose.stands_alone(number):
            continue
        sentence = prose.sentences[number]
        kind = draws.share(f"completion/{number}")
        found = _sentence_end(sentence, number, draws) if kind < 0.5 else _next_sentence(prose, number, draws, choice=kind < 0.75)
        if found is not None:
            yield found


def _sentence_end(sentence: str, number: int, draws: Draws) -> Found | None:
    comma = _COMMA.finditer(sentence) if sentence.count(", ") == 1 else ()
    cuts = [
        cut
        for cut in chain(_CUT.finditer(sentence), comma)
        if sentence.count(" ", 0, cut.start()) + 1 >= _MIN_BEGINNING_WORDS
        and sentence.count(" ", cut.end()) + 1 >= _MIN_REST_WORDS
        and not _HEDGE.search(sentence, 0, cut.start())
        and sentence.count("(", 0, cut.start()) == sentence.count(")", 0, cut.start())
    ]
    if not cuts:
        return None
    cut = cuts[draws.pick(f"sentence_end/{number}", len(cuts))]
    return Found("sentence_end", {"beginning": sentence[: cut.end()].rstrip()}, sentence[cut.end() :], (number,))


def _next_sentence(prose: Prose, number: int, draws: Draws, *, choice: bool) -> Found | None:
    later = number + 1
    if later == len(prose.sentences) or not prose.follows(later) or not prose.stands_alone(later):
        return None
    sentence, right = prose.sentences[number], prose.sentences[later]
    if choice and right.count(" ") < _MAX_OPTION_WORDS:
        wrong = (
            prose.sentences[other]
            for other in _shuffled(range(len(prose.sentences)), draws, f"options/{number}")
            if other not in (number, later) and prose.sentences[other].count(" ") < _MAX_OPTION_WORDS and prose.stands_alone(other)
        )
        others = tuple(islice(wrong, _NUM_OTHERS))
        if len(others) == _NUM_OTHERS:
            return Found("next_sentence_options", {"sentence": sentence}, right, (number, later), others=others)
    return Found("next_sentence", {"sentence": sentence}, right, (number, later))


def _shuffled(items: Sequence[T], draws: Draws, name: str) -> list[T]:
    return [items[place] for place in draws.order(name, len(items))] if len(items) > 1 else list(items)


TASKS: Mapping[RuleTask, Callable[[Passage, Draws], Iterator[Found]]] = {
    "inference": inference,
    "cause_and_effect": cause_and_effect,
    "paraphrase": paraphrase,
    "summarization": summarization,
    "word_to_text": word_to_text,
    "completion": completion,
}
"""The tasks by name, those that are found in fewer passages first."""
