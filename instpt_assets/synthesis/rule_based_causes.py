"""Cause and effect: what a sentence of a passage, or its neighbour, gives as a reason or as a result."""

import re
from collections.abc import Iterator

from instpt_assets.augmentation.draws import Draws
from instpt_assets.synthesis.rule_based_found import Found, Passage, shuffled
from instpt_assets.synthesis.rule_based_sentences import (
    Prose,
    as_sentence,
    capitalized,
    has_verb,
    is_clause,
    is_phrase,
    is_statement,
    leans,
    stands_alone,
)

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
    for number in shuffled(candidates, draws, "cause_and_effect"):
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
        if sentence.count(" because ") == 1 and is_clause(effect) and has_verb(cause) and not leans(found["effect"]):
            return Found("reason", {"statement": effect}, f"Because {cause}.", (number,))
    elif found := _DUE_TO.match(sentence):
        effect, cause = as_sentence(found["effect"]), found["cause"]
        if is_clause(effect) and is_phrase(cause) and not leans(found["effect"]):
            return Found("reason", {"statement": effect}, as_sentence(sentence[found.end("effect") :]), (number,))
    elif found := _CAUSE_FIRST.match(sentence):
        effect, cause = as_sentence(found["effect"]), found["cause"]
        if found["word"] == "Because":
            cause = as_sentence(cause)
            if is_clause(effect) and is_clause(cause):
                if reverse:
                    return Found("result", {"statement": cause}, effect, (number,))
                return Found("reason", {"statement": effect}, f"Because {found['cause']}.", (number,))
        elif is_clause(effect) and is_phrase(cause):
            return Found("reason", {"statement": effect}, f"{found['word']} {cause}.", (number,))
    elif found := _LEADING_TO.match(sentence):
        cause = as_sentence(found["cause"])
        if is_clause(cause) and is_phrase(found["effect"]):
            return Found("result", {"statement": cause}, as_sentence(found["effect"]), (number,))
    elif found := _LED_TO.match(sentence):
        cause, effect = found["cause"], found["effect"]
        if (
            is_phrase(cause)
            and is_phrase(effect)
            and not _ADVERB.search(cause)
            and stands_alone(sentence)
            and 2 <= cause.count(" ") + 1 <= 14
        ):
            if reverse:
                return Found("origin", {"effect": effect}, as_sentence(cause), (number,))
            return Found("outcome", {"cause": cause}, as_sentence(effect), (number,))
    return None
