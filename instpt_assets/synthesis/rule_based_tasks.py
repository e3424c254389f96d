"""The tasks that rules find in a passage: inference, cause and effect, paraphrase, word to text, summarization and completion.

The idea of mining tasks from raw text by connectives and titles is AdaptLLM's (PAPER.md section 7); rules and wording are our own. A task
yields what it finds in a drawn order, the caller takes as many as it wants. What a connective says is taken for true, no more: "however"
tells a contrast and no contradiction, so the options of inference are called a conclusion, a contrast and an addition.
"""

from collections.abc import Callable, Iterator, Mapping

from instpt_assets.augmentation.draws import Draws
from instpt_assets.recipe.writers import RuleTask
from instpt_assets.synthesis.rule_based_causes import cause_and_effect
from instpt_assets.synthesis.rule_based_found import Found, Passage
from instpt_assets.synthesis.rule_based_statements import inference, paraphrase
from instpt_assets.synthesis.rule_based_texts import completion, summarization, word_to_text

VERSION = 3
"""Raised by hand when the rules make other pairs of the same passage; part of the identity of rule-based pairs alone."""

TASKS: Mapping[RuleTask, Callable[[Passage, Draws], Iterator[Found]]] = {
    "inference": inference,
    "cause_and_effect": cause_and_effect,
    "paraphrase": paraphrase,
    "summarization": summarization,
    "word_to_text": word_to_text,
    "completion": completion,
}
"""The tasks by name, those that are found in fewer passages first."""
