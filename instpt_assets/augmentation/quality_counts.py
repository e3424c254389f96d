"""What is counted over all passages and texts of a pair set; memory stays the same however many there are."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from instpt_assets.augmentation.categories import SCENARIOS, scenario
from instpt_assets.augmentation.layouts import PAIRS_FIRST, RAW, Pair
from instpt_assets.augmentation.quality_rows import Passage, Text
from instpt_assets.recipe.synthesis import Layouts
from instpt_assets.synthesis.measures import degenerate
from instpt_assets.synthesis.sampling import DuplicateShare

MAX_PAIRS_SHOWN = 10
"""Passages with so many pairs or more are counted together."""
RESPONSE_BINS = (1, 2, 3, 5, 10, 20, 50, 100)
"""Upper ends of the bins of response lengths, in words; longer ones share the last bin."""
_SEVERAL = 2
"""Pairs that every shot must have for the layouts that need several (PAPER.md section 3)."""


@dataclass
class ShardCounts:
    """What is counted in each shard."""

    num_passages: int = 0
    num_with_pair: int = 0
    num_pairs: int = 0

    @property
    def share(self) -> float:
        """Share of the passages with a valid pair."""
        return self.num_with_pair / self.num_passages if self.num_passages else 0.0

    @property
    def pairs_per_passage(self) -> float:
        """Valid pairs a passage, those without any included."""
        return self.num_pairs / self.num_passages if self.num_passages else 0.0


@dataclass
class Counts:
    """What is counted over all shards."""

    shards: dict[str, ShardCounts] = field(default_factory=dict)
    layouts: Counter[str] = field(default_factory=Counter)
    """Texts by layout."""
    num_several: int = 0
    """Texts with pairs whose shots all have several."""
    num_few: int = 0
    """The other texts with pairs."""
    num_raw_characters: int = 0
    num_augmented_characters: int = 0
    num_pairs: int = 0
    num_pairs_in_texts: int = 0
    num_rejected: int = 0
    num_tokens: int = 0
    num_words: int = 0
    num_errors: int = 0
    num_degenerate: int = 0
    scenarios: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SCENARIOS, 0)))
    pairs_per_passage: Counter[int] = field(default_factory=Counter)
    response_words: Counter[int] = field(default_factory=Counter)
    """Pairs by the bin of their response's length (an index into `RESPONSE_BINS`, or behind it)."""
    instructions: DuplicateShare = field(default_factory=DuplicateShare)

    @property
    def num_passages(self) -> int:
        """Passages of the documents that the pair set chose."""
        return sum(shard.num_passages for shard in self.shards.values())

    @property
    def num_with_pair(self) -> int:
        """Of these, those with a valid pair."""
        return sum(shard.num_with_pair for shard in self.shards.values())

    @property
    def num_texts(self) -> int:
        """Augmented texts, raw ones included."""
        return self.layouts.total()

    def add(self, shard: str, text: Text) -> None:
        """Count a text and its passages."""
        self.layouts[text.layout] += 1
        self.num_augmented_characters += text.num_characters
        self.num_pairs_in_texts += text.num_pairs
        if text.layout != RAW:
            # What was dropped may have left fewer; how many each shot lost is not told, so such texts may be counted as having several.
            several = all(len(passage.pairs) >= _SEVERAL for passage in text.passages)
            self.num_several += several
            self.num_few += not several
        own = self.shards.setdefault(shard, ShardCounts())
        for passage in text.passages:
            self._add_passage(own, passage)

    def _add_passage(self, shard: ShardCounts, passage: Passage) -> None:
        pairs = passage.pairs
        shard.num_passages += 1
        shard.num_with_pair += passage.status == "ok"
        shard.num_pairs += len(pairs)
        self.num_errors += passage.status == "engine_error"
        self.num_rejected += passage.num_rejected or 0
        self.num_tokens += passage.num_tokens or 0
        self.num_raw_characters += passage.num_characters
        self.num_pairs += len(pairs)
        self.pairs_per_passage[min(len(pairs), MAX_PAIRS_SHOWN)] += 1
        for pair in pairs:
            self._add_pair(pair)

    def _add_pair(self, pair: Pair) -> None:
        instruction, response, options, reasoning = pair
        num_response = len(response.split())
        self.scenarios[scenario(pair)] += 1
        self.response_words[bisect_left(RESPONSE_BINS, num_response)] += 1
        self.num_words += num_response + sum(len(part.split()) for part in (instruction, reasoning or "", *options))
        self.num_degenerate += degenerate(instruction, reasoning or "", response)
        self.instructions.add(" ".join(instruction.casefold().split()))


def expected_layouts(layouts: Layouts, num_several: int, num_few: int) -> dict[str, float]:
    """How many texts with pairs the recipe's probabilities let one expect in each layout.

    Args:
        layouts: the probabilities.
        num_several: texts whose shots all have several pairs.
        num_few: the others, which can only be classic or dialog.
    """
    few_classic = 1.0 - layouts.dialog
    classic = layouts.classic * num_several + few_classic * num_few
    dialog = layouts.dialog * (num_several + num_few)
    return {
        "classic": (1 - layouts.pairs_first) * classic,
        f"classic{PAIRS_FIRST}": layouts.pairs_first * classic,
        "dialog": (1 - layouts.pairs_first) * dialog,
        f"dialog{PAIRS_FIRST}": layouts.pairs_first * dialog,
        "numbered": layouts.numbered * num_several,
        "inline_few_shot": layouts.inline_few_shot * num_several,
        "next_turn_dialog": layouts.next_turn_dialog * num_several,
    }


def openings(instructions: Sequence[str], num_words: int = 2) -> Counter[str]:
    """How many instructions begin with the same words, letter case aside."""
    return Counter(" ".join(instruction.casefold().split()[:num_words]) for instruction in instructions)


def distinct(instructions: Sequence[str], length: int) -> tuple[int, int]:
    """Different n-grams of words among the instructions, letter case aside, and how many n-grams there are."""
    grams = Counter[tuple[str, ...]]()
    for instruction in instructions:
        words = instruction.casefold().split()
        grams.update(zip(*(words[start:] for start in range(length)), strict=False))
    return len(grams), grams.total()
