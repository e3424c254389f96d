"""Task categories of pairs, told by stated rules over the forms of instruction, response and options; and their scenarios.

The first category whose rule holds is the pair's. A rule reads the instruction (lower case, options apart), the response in normal form
(`support.normalise`) and, where it says so, the options or the passage. Rules know English forms alone: pairs in other languages end in
`extractive_question`, `multiple_choice`, `open_question` or `other`. What an instruction quotes, or gives behind a colon, is looked at only if
the rest of it tells nothing. A rule looks at form, not at sense, so single pairs are misplaced; shares over hundreds of pairs are what it is for.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from instpt_assets.augmentation.layouts import Pair
from instpt_assets.synthesis.support import normalise, supported

SCENARIOS = ("free form", "free form with reasoning", "options", "options with reasoning")
"""Ways in which a pair asks and answers (PAPER.md section 1)."""


class Form(NamedTuple):
    """A pair as the rules see it."""

    instruction: str
    """In lower case, blanks unified, without what it quotes."""
    response: str
    """Normalised."""
    response_words: Sequence[str]
    """As it is, its first words."""
    options: frozenset[str]
    """Normalised."""
    pair: Pair
    passage: str


class Category(NamedTuple):
    """One task category."""

    name: str
    rule: str
    """What its rule asks for, for people."""
    holds: Callable[[Form], object]


_YES_NO = frozenset({"yes", "no", "maybe", "true", "false", "unknown", "not given", "cannot say", "can not say"})
_INFERENCE = frozenset({"entailment", "neutral", "contradiction", "entails", "contradicts", "not entailment", "entailed", "contradicted"})
_SENTIMENT = frozenset({"positive", "negative", "neutral", "mixed", "very positive", "very negative", "bullish", "bearish"})
_BEGINS_YES_NO = re.compile(r"\s*(?:yes|no)\s*[,.;:!]", re.IGNORECASE)
_QUANTITY = re.compile(r"[<>=~$\u2264\u2265\u00b1\u20ac\u00a3+-]*\d[\d.,/]*(?:%|[^\W\d]{1,6})?[.,]?")
_HEDGES = frozenset(
    "about around approximately over under only nearly almost roughly some more less fewer than at least most up to a total of".split()
)
_MAX_UNIT_WORDS = 2
_MAX_RESPONSE_WORDS = 8
"""A response of more words is no number."""
_QUESTION_MARKS = ("?", "\uff1f", "\u061f", "\u037e")
"""Also full-width, Arabic and Greek ones."""
_ITEM = re.compile(r"\s*(?:[-*\u2022]|\(?\d{1,3}[.)])\s+\S")
_QUOTED = re.compile(r'"[^"]{24,}"|\u201c[^\u201d]{24,}\u201d')
_HEAD_WORDS = 3
_MAX_CHARACTERS = 1000
"""Of a longer instruction the rules see the beginning and the end."""


def _asks(*patterns: str) -> Callable[[Form], object]:
    """The instruction holds one of these."""
    found = re.compile("|".join(patterns))
    return lambda form: found.search(form.instruction)


def _either(*rules: Callable[[Form], object]) -> Callable[[Form], object]:
    return lambda form: any(rule(form) for rule in rules)


def _answers(choices: frozenset[str]) -> Callable[[Form], object]:
    """The response, or every option, is one of these."""
    return lambda form: form.response in choices or (len(form.options) > 1 and form.options <= choices)


def _says_yes_or_no(form: Form) -> object:
    return _answers(_YES_NO)(form) or _BEGINS_YES_NO.match(form.pair.response)


def _chooses_sentiment(form: Form) -> bool:
    return len(form.options) > 1 and form.options <= _SENTIMENT


def _is_number(form: Form) -> bool:
    """The response is a quantity: a number, hedged or not, with a unit of two words at most."""
    words = form.response_words
    while words and words[0].lower() in _HEDGES:
        words = words[1:]
    return bool(words) and len(words) <= 1 + _MAX_UNIT_WORDS and _QUANTITY.fullmatch(words[0]) is not None


def _is_list(form: Form) -> bool:
    """The response has two items or more, each on a line of its own."""
    return sum(_ITEM.match(line) is not None for line in form.pair.response.splitlines()) > 1


CATEGORIES = (
    Category(
        "translation",
        "asks to translate",
        _asks(r"\btranslate\b.{0,80}\b(?:in)?to\b|^translate\b", r"\binto (?:french|german|spanish|chinese|english|latin)\b"),
    ),
    Category(
        "code",
        "asks for code",
        _asks(r"\b(?:write|give|show|complete) .{0,30}\b(?:code|function|script|program|query|regex)\b", r"what does (?:this|the) code"),
    ),
    Category(
        "question_generation",
        "asks to write a question",
        _asks(r"\b(?:write|ask|generate|create|formulate|pose|make up) .{0,25}\bquestions?\b"),
    ),
    Category(
        "word_to_text",
        "asks for a sentence with given words",
        _asks(
            r"^key ?words:",
            r"^(?=.*\b(?:sentence|statement|paragraph|text|story|fact|say)\b)(?!.*\bmean).*\b(?:these|those|following|given|(?:with|from|using|uses) the) (?:\w+ )?(?:words|key ?words|terms|phrases|notes|concepts)\b",
        ),
    ),
    Category(
        "keywords",
        "asks for the text's keywords or entities",
        _asks(r"\bkey ?(?:words?|terms?|phrases?)\b(?!:)|\bnamed entit|\bentities\b"),
    ),
    Category(
        "title",
        "asks for a title or headline",
        _asks(r"\b(?:en)?title\b|\b(?:headline|heading|subject line)\b", r"\bname (?:for )?this (?:passage|text)\b"),
    ),
    Category(
        "summary",
        "asks for a summary or the main points",
        _asks(
            r"\bsummar|\bin short\b|\bwhat does the (?:text|passage|author|study|article) conclude\b",
            r"\btl;? ?dr\b",
            r"\b(?:main|key|central|overall|principal) (?:\w+ )?(?:ideas?|points?|message|findings?|takeaways?|themes?|conclusions?)\b",
            r"\bgist\b|\bin (?:one|a single|two|a few|your own) (?:sentences?|words)\b|\babout\?$",
        ),
    ),
    Category(
        "paraphrase",
        "asks to say the same in other words",
        _asks(
            r"\bparaphras|\brephras|\breword|\brewrite|\brestate|\bin other words\b|\bsame meaning\b",
            r"\bmean(?:s|ing)? the same\b|\bsimplif|\bsay .{0,30}differently\b",
        ),
    ),
    Category(
        "inference",
        "asks whether a statement follows, or answers entailment, neutral or contradiction",
        _either(
            _answers(_INFERENCE),
            _asks(
                r"\b(?:premise|hypothesis:|entail\w*|contradict\w*)\b",
                r"\b(?:can|could|may) .{0,40}\b(?:be (?:inferred|concluded|deduced)|infer|conclude)\b",
                r"\b(?:does|do) .{0,40}\b(?:imply|follow from)\b",
            ),
        ),
    ),
    Category(
        "sentiment",
        "asks for a sentiment or tone, or lets choose between positive and negative",
        _either(_asks(r"\bsentiment\b|\b(?:tone|attitude|mood|emotion)s?\b"), _chooses_sentiment),
    ),
    Category(
        "fact_check",
        "asks whether a statement is true, or answers true or false",
        _either(
            _asks(
                r"\btrue or false\b|^(?:is|are) .{0,80}\b(?:true|false|correct)\b|\bverify\b|\bfact[- ]check",
                r"\b(?:agree|disagree) with\b",
            ),
            _answers(frozenset({"true", "false"})),
        ),
    ),
    Category("yes_no", "answers yes or no", _says_yes_or_no),
    Category(
        "classification",
        "asks for a class, topic or label",
        _asks(
            r"\bclassif|\bcategori[sz]e|\blabel\b",
            r"\bwh(?:at|ich) (?:is the |(?:kind|type|sort) of )?(?:category|topic|genre|text|article|document|passage)\b",
            r"\bbelong(?:s)? to which\b",
        ),
    ),
    Category(
        "completion",
        "asks to complete a text, or leaves a blank",
        _asks(
            r"\bcomplete (?:the|this)\b|\bcontinue\b|\bfinish (?:the|this)\b|\bfill in\b|_{3,}",
            r"\b(?:comes?|follows?) (?:right )?(?:next|after|this)\b",
            r"\bsentence .{0,20}\b(?:behind|after|next)\b|\bnext sentence\b",
            r"\b(?:text|passage|sentence|story) (?:continues?|goes? on)\b",
            r"\bhow does (?:it|the (?:text|passage|sentence|story)) (?:begin|start|end|continue|go on)\b",
            r"(?:…|\.\.\.)$",
        ),
    ),
    Category(
        "coreference",
        "asks what a word refers to",
        _asks(
            r"\brefers? to\b|\bpronoun\b|\breferred to (?:as|by)\b|\bwho (?:is|are) (?:he|she|it|they)\b",
            r"\bwho(?:m|se)? does ['\"\u2018\u201c]?(?:he|she|it|they|his|her|their)\b",
        ),
    ),
    Category(
        "definition",
        "asks what something is or means",
        _asks(
            r"\bdefin(?:e|ed|ition)\b|\bmeaning of\b|\bwhat (?:does|do) .{1,60}\b(?:mean|stand for)\b",
            r"\bwhat is meant by\b|\bstands? for\b|^what (?:is|are) an? [^,]{1,40}\?$|^what is \(are\)",
            r"\babbreviat|\bacronym",
        ),
    ),
    Category(
        "calculation",
        "asks for something computed from numbers",
        _either(
            _asks(
                r"\bcalculat|\bcomput(?:e|ed) the\b|\bhow (?:many|much) (?:more|fewer|less|longer|times)\b",
                r"\b(?:sum|average|mean|ratio|product) of\b.{0,60}\d|\bin total\b",
            ),
            lambda form: form.pair.reasoning and _is_number(form) and re.search(r"\d\s*[-+*/\u00d7\u00f7=]\s*\d", form.pair.reasoning),
        ),
    ),
    Category(
        "comparison",
        "asks to compare",
        _asks(
            r"\bcompar|\bdifferen(?:ce|ces|t)\b|\bdiffer(?:s|ed)?\b|\bsimilar|\bversus\b|\bvs\b|\bthan\b",
            r"\b(?:larger|higher|lower|greater|better|longer|smaller|earlier)\b.{0,40}\bor\b",
            r"\bwhich (?:of|had|has|is|was|group|\w+ (?:had|has|is|was)) .{0,40}\b(?:more|most|fewer|fewest|less|least|highest|lowest|largest|smallest|best|worst)\b",
        ),
    ),
    Category(
        "time",
        "asks when",
        _asks(
            r"^(?:\w+ ){0,3}when\b(?! (?:you|we|one|using|is it)\b.*,)",
            r"\b(?:what|which|in what|in which) (?:year|years|date|month|day|time|decade|century|period)\b",
            r"\bhow long ago\b",
        ),
    ),
    Category(
        "numeric",
        "asks for a number, or answers with one",
        _either(
            _asks(
                r"\bhow (?:many|much|long|old|often|far|large|big|high|tall|wide|deep|fast|heavy|frequently)\b",
                r"\bwhat (?:number|percentage|proportion|fraction|share|percent|amount|age|rate|size|price|dose|p[- ]value)\b",
            ),
            _is_number,
        ),
    ),
    Category(
        "place",
        "asks where",
        _asks(
            r"^(?:\w+ ){0,2}where\b",
            r"\b(?:what|which) (?:country|countries|city|cities|place|location|state|region|hospital|district|room)\b",
        ),
    ),
    Category(
        "person_or_organisation",
        "asks who",
        _asks(
            r"^(?:\w+ ){0,2}(?:who|whom|whose)\b",
            r"\b(?:what|which) (?:person|people|author|authors|company|companies|organi[sz]ation|institution|team|president|character)\b",
            r"\bname of the (?:person|author|company|man|woman)\b",
        ),
    ),
    Category(
        "cause_and_effect",
        "asks for a cause, a reason or an effect",
        _asks(
            r"^(?:\w+ ){0,2}why\b|\bcause[sd]?\b|\breasons?\b|\beffects? (?:of|on)\b|\bimpact (?:of|on)\b",
            r"\bleads? to\b|\bled to\b|\bresult(?:s|ed)? (?:in|from|of)\b|\bconsequence|\bdue to\b",
            r"\bbecause\b|\bwhat happen(?:s|ed) (?:if|when|to)\b|\binfluence",
        ),
    ),
    Category(
        "hypothetical",
        "asks what would be the case",
        _asks(r"\bwhat if\b|\bsuppose\b|\bimagine\b|\bhypothetical|\bwould .{0,60}\bif\b|^if\b"),
    ),
    Category(
        "order",
        "asks for an order of events or steps",
        _asks(
            r"\bwhat (?:happen(?:s|ed)|did .{1,40} do) (?:before|after|first|next|last)\b",
            r"\bin (?:what|which) order\b|\border of\b|\bsequence of\b|\bchronolog",
            r"\b(?:first|next|last|final) (?:step|stage|phase)\b",
        ),
    ),
    Category(
        "purpose",
        "asks what something is for",
        _asks(r"\bpurpose\b|\b(?:goal|aim|objective|intention)s?\b|\bused for\b|\bwhat is .{1,60} for\?"),
    ),
    Category(
        "advice",
        "asks what should be done",
        _asks(
            r"\bshould\b|\brecommend|\badvi[cs]e\b|\bsuggest(?:ion|ions)?\b",
            r"\bhow (?:can|could) (?:you|i|we|one)\b|\bbest way\b|\btips?\b",
        ),
    ),
    Category(
        "evidence",
        "asks for the place in the text that shows something",
        _asks(
            r"\b(?:which|what|quote|find|copy|give|cite) .{0,20}\b(?:sentence|line|quotation|evidence|passage says|part of the (?:text|passage))\b",
            r"^quote\b|\bword for word\b",
        ),
    ),
    Category(
        "list",
        "asks for several things, or answers with a list",
        _either(
            _asks(
                r"^(?:\w+ ){0,2}(?:list|name|enumerate|identify|give|mention)\b.{0,20}\b(?:two|three|four|five|six|some|all|several|examples?|the \w+s)\b",
                r"^list\b",
                r"\bwhat are (?:the |some |)(?:two|three|four|five|six|seven|main|different|types|kinds|examples|names|possible|symptoms|components|features|advantages|disadvantages|benefits|steps)\b",
            ),
            _is_list,
        ),
    ),
    Category(
        "method",
        "asks how something is done",
        _asks(
            r"^(?:\w+ ){0,3}how\b|\bmethods?\b|\bprocedures?\b|\btechniques?\b|\bapproach(?:es)?\b", r"\bsteps?\b|\bstud(?:y|ies) design\b"
        ),
    ),
    Category(
        "explanation",
        "asks to explain or describe",
        _asks(
            r"\bexplain|\bdescri(?:be|ption)|\bdiscuss|\belaborate|\billustrate|\boutline",
            r"\bwhat (?:does|do|did) .{1,80} (?:say|state|report|show|find|conclude|indicate|suggest|reveal|tell|do)\b",
            r"\btell (?:me|us) (?:more )?about\b|\banaly[sz]e",
        ),
    ),
    Category("multiple_choice", "none of these, with options to choose from", lambda form: form.pair.options),
    Category(
        "extractive_question",
        "none of these; the response stands in the passage word for word",
        lambda form: supported(form.pair.response, form.passage),
    ),
    Category(
        "open_question", "none of these; a question", lambda form: form.instruction.rstrip(" \"'\u201d\u2019)").endswith(_QUESTION_MARKS)
    ),
)
"""In the order in which they are tried."""
OTHER = "other"
"""A pair to which no rule applies."""
_LAST = frozenset({"multiple_choice", "extractive_question", "open_question", OTHER})
"""What pairs are that no rule about the instruction's words tells."""


def category(pair: Pair, passage: str) -> str:
    """The name of the pair's category: the first of `CATEGORIES` whose rule holds, else `OTHER`."""
    instruction = " ".join(pair.instruction.lower().split())
    if len(instruction) > _MAX_CHARACTERS:
        instruction = f"{instruction[: _MAX_CHARACTERS // 2]} {instruction[-_MAX_CHARACTERS // 2 :]}"
    asked = _QUOTED.sub('"…"', instruction)
    head, colon, rest = asked.partition(": ")
    if colon and len(head.split()) >= _HEAD_WORDS and len(rest.split()) >= _HEAD_WORDS:
        asked = f"{head}:"
    form = Form(
        asked,
        normalise(pair.response),
        pair.response[:_MAX_CHARACTERS].split(maxsplit=_MAX_RESPONSE_WORDS),
        frozenset(map(normalise, pair.options)),
        pair,
        passage,
    )
    found = _first(form)
    return _first(form._replace(instruction=instruction)) if found in _LAST and asked != instruction else found


def _first(form: Form) -> str:
    return next((known.name for known in CATEGORIES if known.holds(form)), OTHER)


def scenario(pair: Pair) -> str:
    """Which of `SCENARIOS` the pair is."""
    return SCENARIOS[2 * bool(pair.options) + bool(pair.reasoning)]
