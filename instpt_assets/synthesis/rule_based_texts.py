"""Word to text, summarization and completion: a sentence from its words, what a text is called or concludes, how it goes on."""

import re
from collections.abc import Iterator
from itertools import chain, islice

from instpt_assets.augmentation.draws import Draws
from instpt_assets.synthesis.rule_based_found import Found, Passage, shuffled
from instpt_assets.synthesis.rule_based_sentences import Prose, capitalized, is_statement, leans, stands_alone
from instpt_assets.synthesis.support import content_words, normalise

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
    for number in shuffled(range(len(prose.sentences)), draws, "word_to_text"):
        if not prose.stands_alone(number):
            continue
        sentence = prose.sentences[number]
        first = sentence.split(" ", 1)[0]
        words = {word.casefold(): word for word in _DOMAIN_WORD.findall(sentence) if len(word) >= _MIN_WORD_LETTERS and word != first}
        longest = sorted((word for key, word in words.items() if key not in _COMMON), key=lambda word: (-len(word), word))[:_NUM_WORDS]
        if len(longest) == _NUM_WORDS and sentence.count(" ") < 35:
            chosen = shuffled(longest, draws, f"word_to_text/{number}")
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
    yield from shuffled(gists, draws, "summarization/gists")[:1]
    yield from shuffled(headings, draws, "summarization/headings")


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
    for number in shuffled(range(len(prose.sentences)), draws, "completion"):
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
        and not leans(sentence[: cut.start()])
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
            for other in shuffled(range(len(prose.sentences)), draws, f"options/{number}")
            if other not in (number, later) and prose.sentences[other].count(" ") < _MAX_OPTION_WORDS and prose.stands_alone(other)
        )
        others = tuple(islice(wrong, _NUM_OTHERS))
        if len(others) == _NUM_OTHERS:
            return Found("next_sentence_options", {"sentence": sentence}, right, (number, later), others=others)
    return Found("next_sentence", {"sentence": sentence}, right, (number, later))
