"""Which pairs may stand in a pre-training text, and why the others may not."""

from collections.abc import Sequence
from typing import NamedTuple

from instpt_assets.augmentation.layouts import Pair
from instpt_assets.augmentation.options import choices
from instpt_assets.augmentation.phrasings import load_phrasings
from instpt_assets.corpus.contamination import ContaminationIndex, Overlap
from instpt_assets.synthesis.prompt import RESERVED

ANSWER_IS_NO_OPTION = "answer_is_no_option"
"""The response is none of the options, nor says that none is right."""
MARKER = "marker"
"""The pair holds a marker of the prompt format."""
CONTAMINATED = "contaminated"
"""Instruction, options, reasoning and response together hold words of an evaluation example."""


class Dropped(NamedTuple):
    """Why a pair may not stand in a text."""

    reason: str
    overlap: Overlap | None = None
    """What it has in common with an evaluation example, if that is the reason."""


def screen(pairs: Sequence[Pair], contamination: ContaminationIndex | None = None) -> list[Dropped | None]:
    """For each pair why it may not stand in a text, None if it may. Many pairs at once cost little more than one.

    Args:
        contamination: of the evaluation examples that no pair may hold; by default none is looked for.
    """
    none_of_these = load_phrasings().none_of_these
    texts = ["\n".join((instruction, *options, reasoning or "", response)) for instruction, response, options, reasoning in pairs]
    reasons: list[Dropped | None] = [None] * len(pairs)
    if contamination is not None:
        reasons = [None if overlap is None else Dropped(CONTAMINATED, overlap) for overlap in contamination.find(texts)]
    for place in [place for place, text in enumerate(texts) if "<" in text]:
        if any(marker in texts[place] for marker in RESERVED):
            reasons[place] = Dropped(MARKER)
    for place in [
        place for place, pair in enumerate(pairs) if pair.options and (pair.response not in pair.options or not pair.response.strip())
    ]:
        if choices(pairs[place].options, pairs[place].response, none_of_these)[1] is None:
            reasons[place] = Dropped(ANSWER_IS_NO_OPTION)
    return reasons
