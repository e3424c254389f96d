"""Sentences of English prose, and which of them can stand alone: what the rules of `rule_based_tasks` read.

Rules are strict rather than complete: a passage has far more sentences than pairs are taken of it, so what is doubtful is passed over.
"""

import re

_CITATION = re.compile(r"\s?(?:\[\d[\d\s,;–-]*\](?:\s?[,–-]\s?(?=\[))?)+(?!\w)")  # noqa: RUF001
"""Numbers in brackets that point to a list of references."""
_CITED_NUMBERS = re.compile(r" \(\d{1,3}(?:\s?[,–-]\s?\d{1,3})*\)(?=[.,;])")  # noqa: RUF001
_LABEL = re.compile(r"^(?:[A-Z][A-Za-z]*(?:[ /&-][A-Za-z]+){0,3}): (?=[A-Z])")
"""`Background: ` and the like, at the beginning of a paragraph."""
_BREAK = re.compile(r" (?=[\"'“‘(\[]?[A-Z])(?:(?<=[.!?] )|(?<=[.!?][\"')\]”’] ))")  # noqa: RUF001
"""Where a sentence may end, in unified white space. Patterns that run over every sentence begin with a character to look for: that is fast."""
_ABBREVIATION = re.compile(
    r"[(\[]?(?:e\.g|i\.e|vs|cf|viz|al|[Ff]igs?|[Ee]qs?|[Rr]efs?|Drs?|Mr|Mrs|Ms|Prof|St|Nos?|Inc|Ltd|Co|Corp|Jr|Sr|approx|ca|resp|dept|"
    r"Gov|Sen|Rep|"
    r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|(?:[A-Z]\.)*[A-Z])\.$"
)
"""A last word that need not end a sentence."""

_ENDS = ".!?:;\"')]”’"  # noqa: RUF001
_MAX_HEADING = 120
"""A longer line without an end that holds whole sentences is prose cut off in the last one; one that holds none may still be a long title."""

_MIN_CHARACTERS, _MAX_CHARACTERS = 40, 320
_MIN_WORDS, _MAX_WORDS = 7, 50
_MAX_DIGITS = 0.08
_MAX_BRACKETS, _MAX_COMMAS = 2, 7
_DIGIT = re.compile(r"[0-9]")

AUXILIARY = (
    r"is|are|was|were|has|have|had|can|could|may|might|must|shall|should|will|would|do|does|did|cannot|isn't|aren't|wasn't|weren't|don't|"
    r"doesn't|didn't|can't|won't"
)
_VERBS = frozenset(AUXILIARY.split("|")) | frozenset(
    "rose fell grew made took found became began led kept held came went saw said gave ran met lost left spent say says want wants need "
    "needs make makes "
    "take takes show shows suggest suggests include includes depend depends occur occurs cause causes lead leads increase increases "
    "reflect reflects "
    "provide provides require requires continue continues report reports expect expects remain remains mean means rise rises fall falls "
    "buy buys sell "
    "sells use uses know think believe agree exist exists".split()
)
"""What tells a sentence from a heading or a row of a table, beside words in -ed."""
_CAPTION = re.compile(r"(?:The )?[A-Z]\w+ (?:of|in|for|between|from|by|after) ")
_PAST = re.compile(
    r"[a-z]ed (?:the|an?|to|in|by|at|on|from|with|that|as|over|and|more|less|its|their|no|some|all|about|up|down|between|during|\d|\w+ly\b)"
)
"""What begins like a caption needs a past tense that is no adjective."""
_DEPENDENT = (
    "It Its They Their Them He His She Her Hers These That Those Such Here Both Neither Either Another Others Other Same So And But Or "
    "Nor Yet Also "
    "Then Thus Hence Therefore However Moreover Furthermore Additionally Besides Nevertheless Nonetheless Conversely Instead Otherwise "
    "Consequently Accordingly Similarly Likewise Still Indeed Again Meanwhile Finally Subsequently Afterwards Firstly Secondly Thirdly "
    "First "
    "Second Third Lastly Next Alternatively Specifically Namely Notably Interestingly Importantly Respectively Table Figure Fig Figures "
    "Tables "
    "Box Source Note Notes Which Who Whose What Where Why How Each Overall Only Even Now Later Elsewhere Because Due Owing One Ones Some "
    "Similar Regardless "
    "Yes No Well Again Unfortunately Fortunately Perhaps Clearly Surprisingly Correspondingly Concurrently Simultaneously Further Rather "
    "Theirs Ours Have Has Had Is Are Was Were Be Being Been Do Does Did Can Could May Might Must Shall Should Will Would Let See Suppose "
    "Imagine Recall Consider Remember Notice".split()
)
_BEGINS_DEPENDENT = re.compile(
    rf"(?:{'|'.join(sorted(_DEPENDENT))})\b|This (?!(?:study|trial|paper|article|review|analysis|report|survey|chapter|book)\b)"
    r"|(?:In|On|For|By|At|As|To|Under|With|From|After|Of|During|Among|Despite|Within|Besides|Given|Through|Based on|Compared with|"
    r"Compared to|"
    r"Similar to|In addition to|Like|Unlike|Using|Without|Because of|Due to) "
    r"(?:this|that|these|those|such|it|them|its|their|both|each|his|her|here|all of these|addition|contrast|other|turn|fact|general|"
    r"particular|"
    r"summary|conclusion|short|brief|sum|example|instance|comparison|a result|a consequence|the other|the one hand|the contrary|the same|"
    r"another|average)\b"
    r"|The (?:former|latter|same|other|others|second|third|above|following|first|next|remaining|rest|result|results|reason|opposite|effect|"
    r"difference|differences|figure|table|exception|exceptions|two|three|authors?)\b"
)
"""A beginning that leans on the sentence before."""
_POINTS_AWAY = re.compile(
    r"[ (](?:[Ff]ig(?:ure|s)?|[Tt]ables?|[Ee]xhibits?|[Aa]ppendi(?:x|ces)|[Ss]upplementa\w+|[Aa]dditional file|[Cc]hapters?|"
    r"[Ss]ections? \d|[Bb]ox \d|https?|www|"
    r"above-mentioned|aforementioned|as follows|following|described (?:above|below|previously|elsewhere)|(?:above|below)(?=[,.)])|et al|"
    r"see (?:above|below|also)|respectively|ibid|clinicaltrials|ISRCTN|Copyright|doi)(?![A-Za-z])"
)
_NOTATION = re.compile(r"[\[\]=|_\t{}<>\"“”±×*†‡#^~\\…•]|\(\s*\)|\(\d[\d,; –-]*\)|\.\.|[.,](?=\d)(?<=[a-z].)|\. (?=[A-Z])(?<=\b[A-Z]\. )")  # noqa: RUF001
"""What points out of the sentence, or is notation rather than prose. Quotation marks too: a pair quotes sentences."""
_HEADING_INSIDE = re.compile(
    r" (?<=[a-z] )(?:The|An?|In|At|On|Most|Many|Some|Several|Although|While|According|Overall|However|Reports|Contacts|Respondents|"
    r"Retail|Retailers|Sales|"
    r"Manufacturers|Manufacturing|Farmers|Bankers|Loan|Construction|Residential|Commercial|Home|Housing|Consumer|Labor|Employment|Prices|"
    r"Wages|Tourism|Agricultural|Activity|Economic|Business|Demand|Conditions|Growth|Real|Auto|Energy|Credit|Lending|Firms|Since|We|This|"
    r"These|"
    r"There|Both|All|For|By|As|To|From|During|After|Before|With) "
)
"""A heading that ran into the sentence behind it, which begins with a capital of its own."""
_HEADING_FIRST = re.compile(
    r"(?:\S+ ){1,6}?(?!(?:in|at|of|the|for|from|by|and|to|with|on|between|than|that|an?|across|near|into|when|as|but|or|while|through|"
    r"under|over|before|"
    r"after|since|until|against|via|like|among|said|its|their|our|other|all|many|most|some|both|about|around|both|where|if|because|per|"
    r"late|early|mid|"
    r"last|next|each|every|one|two|three|no|not|is|are|was|were|late|versus|within|outside|throughout|toward|towards|during|including|"
    r"especially) )"
    r"[a-z-]+ [A-Z][a-z]{2,} [a-z]"
)
"""The same at the beginning, where the capital stands behind a word that no name follows usually."""
_SUBJECT_AWAY = re.compile(r"[^,]{0,100}, (?:it|they|he|she|this|these|those|the latter)\b")
"""A subject that may be named in the sentence before."""
_FUNCTION_START = frozenset(
    "The A An In At On For By From Of During Since Although Though While As When If After Before Most Many Several All Among Between "
    "According "
    "Despite With Without To Under Over Until Unless Through Throughout Our We Given Within About Around Approximately More Less Fewer "
    "Across "
    "Like Unlike Following Using Every Any I You People Compared Two Three Four Five Six Seven Eight Nine Ten Whether Once Toward "
    "Towards Against Upon".split()
)
_CAPITAL_SECOND = re.compile(r"(?P<first>[A-Z][\w'’-]*),?(?: (?:and|of|for|in|the|&|/))* [A-Z][a-z]")  # noqa: RUF001
_TITLE_RUN = re.compile(r"[A-Z][\w'-]+ (?:[A-Z][\w'-]+ |and |of ){2,}[A-Z]")


class Prose:
    """A passage as sentences, in order; what is known of each is found out when it is asked for.

    Attributes:
        text: the passage.
        sentences: white space unified, citation numbers and labels of paragraphs left out, and so is the last one of a line if it is cut off.
        paragraphs: the number of the line that each stands in; neighbours of one line belong together.
        headings: lines without an end that are no prose cut off, by the number of the line.
        labels: of paragraphs that are not cut off, by the number of the line.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sentences: list[str] = []
        self.paragraphs: list[int] = []
        self.headings: dict[int, str] = {}
        self.labels: dict[int, str] = {}
        self._alone: dict[int, bool] = {}
        if "[" in text:
            text = _CITATION.sub("", text)
        text = _CITED_NUMBERS.sub("", text)
        for number, line in enumerate(text.split("\n")):
            line = " ".join(line.split())
            is_whole = len(line) >= _MIN_CHARACTERS and line[-1] in _ENDS
            if not is_whole and len(line) <= _MAX_HEADING:
                if line:
                    self.headings[number] = line
                continue
            label = _LABEL.match(line)
            sentences = _sentences(line[label.end() :] if label else line)
            if not is_whole:
                sentences.pop()
                if not sentences:
                    self.headings[number] = line
            elif label:
                self.labels[number] = label[0][:-2]
            self.sentences += sentences
            self.paragraphs += [number] * len(sentences)

    def stands_alone(self, number: int) -> bool:
        """`stands_alone` of a sentence."""
        known = self._alone.get(number)
        if known is None:
            known = self._alone[number] = stands_alone(self.sentences[number])
        return known

    def follows(self, number: int) -> bool:
        """Whether the sentence before stands in the same paragraph."""
        return number > 0 and self.paragraphs[number - 1] == self.paragraphs[number]


def _sentences(line: str) -> list[str]:
    """All of the line, in sentences: the last one is what stands behind the last end."""
    sentences, before = list[str](), ""
    for piece in _BREAK.split(line):
        sentence = f"{before} {piece}" if before else piece
        if piece[-1] == "." and _ABBREVIATION.match(piece, piece.rfind(" ") + 1):
            before = sentence
        else:
            before = ""
            sentences.append(sentence)
    return [*sentences, before] if before else sentences


def is_statement(sentence: str) -> bool:
    """Whether it is one whole statement in prose: neither a heading, a row of a table, a question nor cut off, of a usual length."""
    if not (_MIN_CHARACTERS <= len(sentence) <= _MAX_CHARACTERS) or sentence[-1] != "." or not sentence[0].isupper():
        return False
    if not (sentence[-2].isalnum() or sentence[-2] in ")%") or _NOTATION.search(sentence) or sentence.count(",") > _MAX_COMMAS:
        return False
    opening, digits = sentence.count("("), len(_DIGIT.findall(sentence))
    if opening != sentence.count(")") or opening > _MAX_BRACKETS or digits > _MAX_DIGITS * len(sentence):
        return False
    words = sentence.split(" ")
    if not _MIN_WORDS <= len(words) <= _MAX_WORDS or ":" in sentence or sentence.count(";") > 1:
        return False
    if _VERBS.isdisjoint(words) and ("ed " not in sentence or (_CAPTION.match(sentence) and not _PAST.search(sentence))):
        return False
    if _POINTS_AWAY.search(f" {sentence}") or _HEADING_INSIDE.search(sentence) or _HEADING_FIRST.match(sentence):
        return False
    capital = _CAPITAL_SECOND.match(sentence)
    return (capital is None or capital["first"] in _FUNCTION_START) and not _TITLE_RUN.search(sentence)


def stands_alone(sentence: str) -> bool:
    """Whether it is a statement (`is_statement`) that is understood without the sentence before it."""
    return not (_BEGINS_DEPENDENT.match(sentence) or _SUBJECT_AWAY.match(sentence)) and is_statement(sentence)


def capitalized(text: str) -> str:
    """The text with its first letter a capital."""
    return text[:1].upper() + text[1:]


def as_sentence(text: str) -> str:
    """A part of a sentence as one of its own: a capital first, a full stop last."""
    return capitalized(text.strip(" ,;")).rstrip(".") + "."


_FINITE = re.compile(rf"\b(?:{AUXILIARY}|which|who|that|whose|whether)\b")
_HEDGE = re.compile(
    r"(?:\b(?:not|only|just|simply|partly|largely|mainly|primarily|probably|perhaps|possibly|part|likely|and|but|or|be|been|is|are|was|"
    r"were|mostly|especially|particularly|precisely|either|being|that|than|as|both|rather|so|merely|the|a|of|to|in|by|with|for)|,)$"
)
_FINITE_CLAUSE = re.compile(
    rf"\b(?:{AUXILIARY}|\w{{3,}}ed|[a-z]{{3,}}s|rose|fell|grew|made|took|found|became|began|kept|came|went|said|want|need|have|make)\b"
)
_POINTS_BACK = re.compile(r"\b(?:this|that|these|those|such|it|they|as well as to)\b")
_MIN_CLAUSE_WORDS, _MAX_PHRASE_WORDS = 4, 25


def is_clause(sentence: str) -> bool:
    """Whether a part of a sentence can be quoted as one."""
    words = sentence.count(" ") + 1
    return words >= _MIN_CLAUSE_WORDS and not leans(sentence[:-1]) and _may_stand(sentence)


def _may_stand(sentence: str) -> bool:
    # What is short for a sentence of its own may still be a clause.
    return stands_alone(sentence) if len(sentence) >= _MIN_CHARACTERS else stands_alone(f"{sentence[:-1]} as it is here told in this text.")


def is_phrase(text: str) -> bool:
    """Whether it is a phrase without a verb of its own, as far as words tell."""
    return text.count(" ") < _MAX_PHRASE_WORDS and not _FINITE.search(text) and not _POINTS_BACK.search(text)


def leans(text: str) -> bool:
    """Whether the beginning of a sentence ends in a word that leans on what follows."""
    return _HEDGE.search(text) is not None


def has_verb(clause: str) -> bool:
    """Whether words of a clause look like its verb."""
    return _FINITE_CLAUSE.search(clause) is not None
