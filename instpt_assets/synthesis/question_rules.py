"""The rules behind `questions`: each reads one sentence of English and yields questions that a span of it answers, word for word.

A question repeats what the sentence says beside the answer, so whoever learns from the pairs learns to find the sentence, to ask about it
and to copy. The rules are made for the style of reference documentation ("If True, …", "Returns the …", "must be …", "axis (int): …").
"""

import random
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

Asked: TypeAlias = Iterator[tuple[str, str]]
"""Questions and their answers, the most telling first."""

MAX_ANSWER_WORDS = 14
YES, NO = "Yes", "No"

ENTRY = re.compile(r"^(?P<name>\*{0,2}\w[\w.]*(?:, \*{0,2}\w[\w.]*)*)(?: \((?P<kind>(?:[^()]|\([^()]*\))+)\))?: (?P<description>\S.*)$")
"""An entry of a list of parameters, results or errors: `name (type, default x): description`."""

_CONNECTIVE = re.compile(
    r"^(?:However|Moreover|In addition|Furthermore|Therefore|Thus|Hence|Overall|Also|Finally|Then|Otherwise|In particular|In general|"
    r"Generally|Typically|Usually|Similarly|Additionally|Instead|Consequently|In this case|In that case|In other words|As a result|"
    r"Importantly|Alternatively|Currently|Internally|Please note that|Note that|Notice that|Note:?|Notes:|Warning:|Important:|And|But|So),? ",
)
_BREAKS = frozenset(
    "and but which while with in for at by because to from when if unless or where so that (see (e.g. as using whose".split()
)
_PRONOUNS = frozenset("it he she they this these those that we there i you one what who which here such each all both".split())
_LOWERED = frozenset(
    "the a an in this these those most many some all several our their its his her it they we there at for on both each no other one two "
    "when while if to with by of any every only such you values elements arguments objects parameters using not either".split()
)
_OPENERS = frozenset(
    "if when unless for in to by see while as since because with at from on after before although though until once where note given "
    "however unlike whether let suppose assume are is do does can use".split()
)
_DANGLING = frozenset(
    "that which who and or it they you we to of not if when what only also the a an is are be with for in by as from than but at on".split()
)

# Words that are verbs wherever they follow a subject, and words that are verbs only if a determiner follows.
_THIRD_PERSON = (
    "accepts allows applies assumes becomes behaves calculates computes consists contains controls converts corresponds creates defines "
    "denotes depends describes determines differs enables ensures evaluates exposes follows generates gives handles has helps holds "
    "ignores implements implies includes indicates inherits iterates keeps lets makes means modifies needs operates overrides performs "
    "prevents produces provides raises receives refers relies removes replaces represents requires returns satisfies specifies stands "
    "supports takes tells throws tries uses yields"
)
_DETERMINER = r"(?:the|a|an|all|any|each|every|its|this|that|these|whether|how|no|one|two|only|several|both|another|some)"
_VERB = rf"(?:{'|'.join(_THIRD_PERSON.split())}|[a-z]{{3,}}s(?= {_DETERMINER} )(?<!this)(?<!was)(?<!has)(?<!does)(?<!its)(?<!less)(?<!thus)(?<!is))"
_PLURAL = "|".join(
    "accept allow apply become contain correspond define depend describe determine expect follow give include indicate inherit make mean "
    "need provide receive refer represent require return share specify support take use".split()
)
_NO_IMPERATIVE = (
    "With|For|From|In|As|Both|Is|Are|Given|Note|Unlike|Like|Perhaps|Only|Even|To|By|On|At|If|When|While|Since|Because|And|Or|But|Not|Of|"
    "That|This|These|Those|There|Here|Where|Which|What|How|Such|Each|All|Any|Some|Most|Many|The|Over|Under|After|Before|Until|Then|Thus|"
    "Hence|Also|Else|Without|Whether|During|Per|Via|Has|Was|Does|Its|Unless|Once|Into|Between|Through|See|Than|About|Instead|Though|Along"
)
_KNOWN_IMPERATIVE = (
    "Add Apply Append Broadcast Build Calculate Call Cast Check Compute Concatenate Construct Convert Copy Count Create Decode Define Delete "
    "Determine Draw Encode Ensure Estimate Evaluate Execute Expand Extract Fill Filter Find Fit Format Generate Get Group Initialize Insert "
    "Interpolate Iterate Join Load Make Map Merge Open Parse Perform Plot Predict Print Produce Provide Raise Read Register Remove Rename "
    "Replace Represent Reshape Retrieve Return Reverse Round Run Sample Save Scale Select Send Set Show Solve Sort Split Stack Store Take Test "
    "Transform Update Validate Write"
)
_IMPERATIVE = rf"(?P<verb>{'|'.join(_KNOWN_IMPERATIVE.split())}|(?!(?:{_NO_IMPERATIVE}) )[A-Z][a-z]{{2,}}(?= {_DETERMINER} )|(?!(?:{_NO_IMPERATIVE}) )[A-Z][a-z]{{2,}}(?:es|s)(?= [a-z]))"
_MODALS = "can|cannot|could|may|might|must|should|will|would"
_PARTICIPLE = (
    r"(?:\w+ed|given|set|done|made|built|taken|shown|found|drawn|chosen|held|kept|read|run|written|known|thrown|split|cast|put|sent|left)"
)
_TOPIC_WORDS, _ABOUT_WORDS = 3, 14
_ABOUT = ("What is said about", "What does the text say about")
_ARTICLES = frozenset(("the", "a", "an"))
_NO_TOPIC = (
    _BREAKS
    | _DANGLING
    | _PRONOUNS
    | frozenset(f"{_THIRD_PERSON} {_PLURAL.replace('|', ' ')} {_KNOWN_IMPERATIVE}".lower().split())
    | frozenset(
        "them their then than thus hence here within without would were was been being have having has had do does done every either neither "
        "many much some same other another even very just into onto over under upon after before above below between during since until "
        "because though although however must might could should shall will can may made using given works true false none default defaults "
        "optional example examples instance first second last next see care way more".split()
    )
)
_SUBJECT = r"(?P<subject>[^\s,;:.!?][^,;:!?]{0,69}?)"
_REST = r"(?P<rest>.+?)[.:;!]*$"


def ask_about(sentence: str, *, section: str = "") -> list[tuple[str, str]]:
    """All questions and answers that the rules find in one sentence (white space unified), the most telling kinds first.

    Args:
        sentence: A sentence, a list item, or an entry `name (type): description`.
        section: The heading it stands under (`returns`, `parameters`, …), if any: what a result is called depends on it.
    """
    body = _CONNECTIVE.sub("", sentence)
    if entry := ENTRY.match(body):
        found = list(_entry(entry, section))
    elif len(body.split()) < 4:
        found = []
    else:
        found = [asked for rule in _RULES for asked in rule(body)]
    shortened = ((question, shorten(answer)) for question, answer in found)
    return [*(asked for asked in shortened if _is_sound(*asked)), *_yes_or_no(body, section)]


def ask_about_name(name: str, sentence: str) -> list[tuple[str, str]]:
    """What the documented object `name` does or is, told by the sentence behind its title."""
    question = f"What does {name} do?" if re.match(rf"^{_IMPERATIVE} ", sentence) else f"What is {name}?"
    answer = shorten(sentence)
    return [(question, answer)] if _is_sound(question, answer) else []


def ask_about_topic(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    """What the text says about the first thing that a sentence names: up to three words that end before a verb, a preposition or the like.

    The answer begins with them and goes on as the sentence does, so question and answer are copied from one place: what a small model
    learns first. An article stands in the question only.
    """
    words = sentence.split()
    ordinary = [word.lower().strip(",;:.()") not in _NO_TOPIC for word in words]
    for start in range(len(words) - 3):
        begins = start == 0 or not ordinary[start - 1] or words[start - 1][-1] in ",;:."
        if not (begins and ordinary[start] and re.match(r"[A-Za-z_]\w{3,}[^()]*$", words[start])):
            continue
        end = start + 1
        while end < start + _TOPIC_WORDS and ordinary[end] and words[end - 1][-1].isalnum() and words[end][0].isalpha():
            end += 1
        topic, answer = " ".join(words[start:end]).rstrip(",;:."), shorten(" ".join(words[start:]), _ABOUT_WORDS)
        if len(answer.split()) >= end - start + 2 and _is_closed(answer):
            before = words[start - 1].lower() if start else ""
            return f"{rng.choice(_ABOUT)} {before + ' ' if before in _ARTICLES else ''}{topic}?", answer
    return None


def shorten(span: str, num_words: int = MAX_ANSWER_WORDS) -> str:
    """The first words of `span`, cut where a phrase ends, without closing punctuation."""
    words = span.strip(" ,;:").split(" ")
    if len(words) > num_words:
        ends = [i for i in range(3, num_words + 1) if words[i - 1][-1:] in ",;:." or words[i].lower() in _BREAKS]
        words = words[: ends[-1] if ends else num_words]
    text = " ".join(words).rstrip(" ,;:")
    return text[:-1] if text.endswith(".") and not text.endswith(("..", "e.g.", "i.e.", "etc.")) else text


def _is_closed(text: str) -> bool:
    return (
        all(text.count(left) == text.count(right) for left, right in ("()", "[]", "{}")) and text.count("`") % 2 == text.count('"') % 2 == 0
    )


def _is_sound(question: str, answer: str) -> bool:
    return bool(
        8 <= len(question) <= 140
        and re.search(r"\w", answer)
        and _is_closed(question)
        and _is_closed(answer)
        and answer.split()[-1].lower() not in _DANGLING | {"e.g", "i.e", "etc"}
        and answer.lower() not in question.lower()
    )


def _lower(span: str) -> str:
    """`span` as it stands inside a sentence: its first letter lowered where the first word is an ordinary one."""
    return span[0].lower() + span[1:] if span.split(" ", 1)[0].lower() in _LOWERED else span


def _is_subject(span: str) -> bool:
    words = [word.lower() for word in span.split()]
    return (
        len(words) <= 9
        and words[0] not in _OPENERS
        and words[-1] not in _DANGLING - {"it", "they", "you", "we"}
        and not {"if", "when"} & set(words)
    )


def _is_noun(span: str) -> bool:
    return span.split()[0].lower() not in _PRONOUNS and len(span) > 2


def _infinitive(verb: str) -> str:
    if verb in ("has", "does"):
        return {"has": "have", "does": "do"}[verb]
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(("sses", "shes", "ches", "xes")) else verb[:-1]


def _entry(entry: re.Match[str], section: str) -> Asked:
    """An entry: `axis (int, default 0): Axis to sum over`."""
    name, kind, description = entry["name"], entry["kind"], entry["description"]
    if re.search(r"(?:Error|Warning|Exception)$", name):
        yield f"When is {name} raised?", description
    elif section in ("returns", "yields"):
        if told := re.match(r"^Returns? (?P<what>.+)$", description):
            description = told["what"]
        yield f"What is {'returned' if section == 'returns' else 'yielded'}?", description
    elif kind or section:
        yield f"What {'are' if ', ' in name else 'is'} {name}?", description
    if kind and section not in ("returns", "yields"):
        stated = re.match(r"^(?P<type>.*?)(?:, )?(?:default(?:=| is |: | )(?P<default>[^,]+))?$", kind)
        if stated and stated["default"]:
            yield f"What is the default of {name}?", stated["default"]
        if stated and stated["type"]:
            yield f"What is the type of {name}?", stated["type"]


def _yes_or_no(s: str, section: str) -> Asked:
    """name (type, optional): …; X is Y; X cannot Y."""
    if entry := ENTRY.match(s):
        if entry["kind"] and ", " not in entry["name"] and section not in ("returns", "yields"):
            yield f"Is {entry['name']} optional?", YES if re.search(r"\b(?:optional|default)\b", entry["kind"]) else NO
    elif (m := re.match(rf"^{_SUBJECT} (?P<aux>is|are|can|must|should|will)(?P<no>not| not)? (?P<rest>[^,;:]{{4,60}}?)\.?$", s)) and (
        _is_subject(m["subject"]) and _is_noun(m["subject"]) and not re.match(rf"(?:Default|{_IMPERATIVE}) ?", s)
    ):
        yield f"{m['aux'].capitalize()} {_lower(m['subject'])} {m['rest']}?", NO if m["no"] else YES


def _condition(s: str) -> Asked:
    """If X, Y."""
    if m := re.match(
        rf"^(?P<word>If|When|Unless|For|In|On|At|During|After|Before|Under) (?P<condition>[^,;]{{1,90}}), (?:then )?{_REST}", s
    ):
        word, condition, rest = m["word"], m["condition"], m["rest"]
        if word not in ("If", "When", "Unless"):
            if condition.lower() not in ("example", "instance"):
                for question, answer in _clause(rest):
                    yield f"{question[:-1]} {word.lower()} {condition}?", answer
        elif condition.strip("`") in ("None", "True", "False"):
            yield f"What does {condition} mean?", rest
        else:
            yield f"What happens {word.lower()} {condition}?", rest


def _trailing_condition(s: str) -> Asked:
    """X is Y if Z; must be Y; only used when Z."""
    words = r"(?P<word>only if|only when|if|when|unless|before|after)"
    if m := re.match(rf"^{_SUBJECT} (?P<aux>is|are|{_MODALS}) (?P<middle>[^,;]{{3,60}}?),? {words} {_REST}", s):
        if _is_subject(m["subject"]):
            yield f"When {m['aux']} {_lower(m['subject'])} {m['middle']}?", f"{m['word']} {m['rest']}"
    elif m := re.match(rf"^(?:Raises?|Throws?) (?:an? )?(?P<error>[^,;]{{3,40}}?) {words} {_REST}", s):
        yield f"When is {m['error']} raised?", f"{m['word']} {m['rest']}"
    elif m := re.match(rf"^Only (?P<what>{_PARTICIPLE}|available|valid|relevant|effective) (?P<word>if|when|for|in|with|by) {_REST}", s):
        yield f"When is it {m['what']}?", f"{m['word']} {m['rest']}"
    elif m := re.match(rf"^(?P<modal>Must|Can|Should|May|Will) (?P<verb>be|have|not be) {_REST}", s):
        yield f"What {m['modal'].lower()} it {m['verb']}?", m["rest"]
    elif m := re.match(rf"^Used (?P<word>to|for|by|in|when|as|if) {_REST}", s):
        yield "What is it used for?", f"{m['word']} {m['rest']}"


def _default(s: str) -> Asked:
    """By default, X; the default is X; defaults to X."""
    if m := re.match(rf"^By default,? {_REST}", s):
        asked = [(f"{question[:-1]} by default?", answer) for question, answer in _clause(m["rest"])]
        yield from asked[:1] or [("What is the default?", m["rest"])]
    elif m := re.search(
        r"\b[Dd]efaults? ?(?:value )?(?:is|to|:|=) ?(?P<value>[^\s,;]+(?: [^\s,;]+){0,5}?)(?=[.,;)]|$| if | when | for | which )", s
    ):
        yield "What is the default?", m["value"].rstrip(").")


def _purpose(s: str) -> Asked:
    """To X, Y; use X to Y; X is used to Y; see X for Y."""
    if m := re.match(rf"^(?:In order )?[Tt]o (?P<aim>[a-z][^,;]{{4,80}}), {_REST}", s):
        yield f"How can one {m['aim']}?", m["rest"]
    elif m := re.match(rf"^Use (?P<means>[^,;]{{2,60}}?) (?P<word>to|for|if|when) {_REST}", s):
        yield f"What should be used {m['word']} {shorten(m['rest'])}?", m["means"]
    elif (
        m := re.match(rf"^{_SUBJECT} (?P<aux>is|are|can be|may be|should be) used (?P<word>to|for|as|in|by|with|when|if) {_REST}", s)
    ) and _is_subject(m["subject"]):
        aux, _, be = m["aux"].partition(" ")
        yield f"What {aux} {_lower(m['subject'])} {be + ' ' if be else ''}used for?", f"{m['word']} {m['rest']}"
    elif m := re.match(
        rf"^(?:See(?: also)?|Refer to|Check|Read more in|Please see|Please refer to) (?P<place>[^,;]{{3,70}}?) for (?:more )?{_REST}", s
    ):
        yield f"Where can one find {shorten(m['rest'])}?", m["place"]


def _imperative(s: str) -> Asked:
    """Compute X along Y; computes X."""
    if (m := re.match(rf"^{_IMPERATIVE} {_REST}", s)) is None:
        return
    verb = m["verb"].lower()
    does = _infinitive(verb) if verb.endswith("s") and not verb.endswith(("ss", "us")) else verb
    if part := re.match(rf"^(?P<object>[^,;]{{3,80}}?) (?P<word>by|using|via) {_REST}", m["rest"]):
        yield f"How does it {does} {part['object']}?", f"{part['word']} {part['rest']}"
    if part := re.match(rf"^(?P<object>[^,;]{{3,60}}?) (?P<word>along|over|from|into|for|with|as|in|on) {_REST}", m["rest"]):
        if part["object"].split()[-1] not in _DANGLING | {"according", "related", "used", "respect", "such", "associated", "based", "same"}:
            yield f"What does it {does} {part['word']} {shorten(part['rest'])}?", part["object"]
    yield f"What does it {does}?", m["rest"]


def _passive(s: str) -> Asked:
    """X is computed by Y; X can be passed to Y."""
    words = "by|as|using|with|from|to|in|on|for|via|along|over"
    pattern = rf"^{_SUBJECT} (?P<aux>is|are|was|were|(?:{_MODALS}) be) (?P<how>(?:\w+ly |only )?{_PARTICIPLE}) (?P<word>{words}) {_REST}"
    if (m := re.match(pattern, s)) is None or not _is_subject(m["subject"]) or m["how"] == "used":
        return
    aux, _, be = m["aux"].partition(" ")
    verb, word = (f"{be} " if be else "") + m["how"], m["word"]
    if word in ("by", "as", "using", "via", "with"):
        yield f"How {aux} {_lower(m['subject'])} {verb}?", f"{word} {m['rest']}"
    else:
        yield f"What {aux} {_lower(m['subject'])} {verb} {word}?", m["rest"]
    if _is_noun(m["subject"]):
        yield f"What {m['aux']} {m['how']} {word} {shorten(m['rest'], 10)}?", _lower(m["subject"])


def _clause(s: str) -> Asked:
    """X is Y; X must be Y; X returns Y."""
    if re.match(rf"^{_IMPERATIVE} ", s):
        return
    if (m := re.match(rf"^{_SUBJECT} (?P<aux>is|are|was|were) {_REST}", s)) and _is_subject(m["subject"]):
        yield from _copula(m["subject"], m["aux"], m["rest"])
    elif (m := re.match(rf"^{_SUBJECT} (?P<modal>{_MODALS}) (?P<verb>(?:\w+ly )?(?:not be|be|have|[a-z]+)) {_REST}", s)) and _is_subject(
        m["subject"]
    ):
        yield from _modal(m["subject"], m["modal"], m["verb"], m["rest"])
    elif (m := re.match(rf"^{_SUBJECT} (?P<verb>{_VERB}) {_REST}", s)) and _is_subject(m["subject"]):
        subject, verb, rest = m["subject"], m["verb"], m["rest"]
        word, _, tail = rest.partition(" ")
        if word in ("to", "on", "of", "for", "from", "in", "with", "as", "like") and tail:
            yield f"What does {_lower(subject)} {_infinitive(verb)} {word}?", tail
        elif not re.match(rf"(?:not|been|{_PARTICIPLE}) ", rest):
            yield f"What does {_lower(subject)} {_infinitive(verb)}?", rest
        if _is_noun(subject) and verb != "means":
            yield f"What {verb} {shorten(rest, 10)}?", _lower(subject)
    elif (m := re.match(rf"^{_SUBJECT} (?P<verb>{_PLURAL}) {_REST}", s)) and _is_subject(m["subject"]):
        yield f"What do {_lower(m['subject'])} {m['verb']}?", m["rest"]


def _copula(subject: str, aux: str, rest: str) -> Asked:
    if subject.lower() == "there":
        yield f"What {aux} there?", rest
        return
    if not re.match(rf"(?:not|no longer|also|only) |{_PARTICIPLE}$", rest):
        yield f"What {aux} {_lower(subject)}?", rest
    if _is_noun(subject):
        yield f"What {aux} {shorten(rest, 10)}?", _lower(subject)


def _modal(subject: str, modal: str, verb: str, rest: str) -> Asked:
    means = re.match(r"^(?P<means>[^,;]{2,50}?) to (?P<aim>[a-z].+)$", rest)
    if means and verb in ("use", "pass", "specify", "set", "call"):
        yield f"What {modal} {_lower(subject)} {verb} to {shorten(means['aim'], 12)}?", means["means"]
    elif verb not in ("not", "also", "only"):
        yield f"What {modal} {_lower(subject)} {verb}?", rest
    if _is_noun(subject):
        yield f"What {modal} {verb} {shorten(rest, 10)}?", _lower(subject)


def _reason(s: str) -> Asked:
    """X because Y."""
    if m := re.match(rf"^(?P<fact>.{{12,100}}?),? (?P<word>because|due to|since|owing to) {_REST}", s):
        if fact := re.match(rf"^{_SUBJECT} (?P<aux>is|are|was|were|{_MODALS}) (?P<rest>.+)$", m["fact"]):
            yield f"Why {fact['aux']} {_lower(fact['subject'])} {fact['rest']}?", f"{m['word']} {m['rest']}"
        else:
            yield f"Why is it that {_lower(m['fact'])}?", f"{m['word']} {m['rest']}"


def _examples(s: str) -> Asked:
    """Xs such as Y; for example, X."""
    if m := re.search(
        r"\b(?P<kind>(?:[\w-]+ )?[a-z][\w-]+),? (?:such as|including) (?P<members>[^.;:()]{4,90}?)(?=[.;)]|, (?:and|but|which|it|the) |$)",
        s,
    ):
        if m["kind"].split()[-1] not in _DANGLING:
            yield f"What are examples of {m['kind']}?", m["members"]
    elif m := re.match(rf"^For (?:example|instance),? {_REST}", s):
        yield "What is an example?", m["rest"]


def _abbreviation(s: str) -> Asked:
    """Long Name (LN)."""
    if m := re.search(r"\b(?P<name>(?:[A-Za-z][a-z-]+ ){1,5}[A-Za-z][a-z-]+) \((?P<short>[A-Z]{2,6})\)", s):
        words = m["name"].split()[-len(m["short"]) :]
        if words[0][0].upper() == m["short"][0]:
            yield f"What does {m['short']} stand for?", " ".join(words)


def _number(s: str) -> Asked:
    """Two more Xs."""
    numbers = r"\d[\d,]*|two|three|four|five|six|seven|eight|nine|ten|twelve"
    if m := re.search(rf"(?<![-.\w])(?P<number>{numbers}) (?P<things>(?:[a-z-]+ ){{1,3}}[a-z-]{{3,}}s)\b", s):
        things = m["things"].split()
        if not things[0].endswith("ing") and not _NO_TOPIC & {*things} and "times" not in things:
            yield f"How many {m['things']}?", m["number"]


_RULES: tuple[Callable[[str], Asked], ...] = (
    _condition, _default, _purpose, _imperative, _trailing_condition, _passive, _clause, _reason, _examples, _abbreviation, _number,
)  # fmt: skip
