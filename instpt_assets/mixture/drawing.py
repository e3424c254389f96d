"""How many documents each component of a mixture gives, and in what order they are trained on.

A component is drawn in passes: all its documents in a random order, then all again in the same order, and so on; a fraction of a pass is
that order's begin. So a document is taken as often as its component is passed over, rounded down or up, and a longer training takes what a
shorter one did and goes on from there. In training, documents of all components and passes are shuffled together.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.documents import BLOCK, Documents, blocks
from instpt_assets.mixture.ordering import Keys, rekey
from instpt_assets.mixture.packing import piece_lengths
from instpt_assets.recipe.arms import Component

_GROUP = 4096
"""Documents between which the tokens reached are remembered."""
_LOW = np.uint64(0xFFFFFFFF)

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]
"""Documents by their places in `Documents`."""
Drawn = tuple[int, ...]
"""How many draws [components] of each component are made up to the end of a stretch, those of earlier ones counted."""


class Passes:
    """The documents of one component in the order in which it is drawn, pass after pass; 4 bytes a document.

    Args:
        documents: of all components.
        begin: the component's first.
        end: the first behind them.
    """

    def __init__(self, documents: Documents, begin: int, end: int) -> None:
        self._tokens = documents.num_tokens
        places = (np.arange(first, min(first + BLOCK, end)) for first in range(begin, end, BLOCK))
        self._order = ordered(((documents.keys[some], some) for some in places), end - begin)
        starts = range(0, len(self._order), _GROUP)
        in_groups = [int(self._tokens[self._order[start : start + _GROUP]].sum(dtype=np.int64)) for start in starts]
        self._reached: Ints = np.cumsum([0, *in_groups])
        self.num_tokens = int(self._reached[-1])
        """Of one pass."""

    def __len__(self) -> int:
        return len(self._order)

    def tokens_of(self, count: int) -> int:
        """Tokens of the first `count` draws."""
        passes, rest = divmod(count, len(self))
        block, within = divmod(rest, _GROUP)
        begin = block * _GROUP
        last = self._tokens[self._order[begin : begin + within]]
        return passes * self.num_tokens + int(self._reached[block]) + int(last.sum(dtype=np.int64))

    def reaching(self, num_tokens: int) -> int:
        """How few draws hold that many tokens."""
        if num_tokens <= 0:
            return 0
        passes, rest = divmod(num_tokens, self.num_tokens)
        if not rest:
            return passes * len(self)
        block = int(np.searchsorted(self._reached, rest)) - 1
        begin = block * _GROUP
        ends = self._reached[block] + np.cumsum(self._tokens[self._order[begin : begin + _GROUP]], dtype=np.int64)
        return passes * len(self) + begin + int(np.searchsorted(ends, rest)) + 1

    def nearest(self, num_tokens: int) -> int:
        """How many draws come nearest to that many tokens; of two, the more."""
        count = self.reaching(num_tokens)
        fewer = count > 0 and num_tokens - self.tokens_of(count - 1) < self.tokens_of(count) - num_tokens
        return count - fewer

    def draws(self, begin: int, end: int) -> list[tuple[int, Places]]:
        """The draws begin … end - 1, by the pass to which they belong."""
        found = []
        for number in range(begin // len(self), -(-end // len(self))):
            first = number * len(self)
            found.append((number, self._order[max(begin - first, 0) : end - first]))
        return found


class TooLittleData(ValueError):
    """A component cannot give what the mixture asks of it; the message says what can be done."""


class Drawing:
    """Draws from all components.

    Args:
        mixture: the components.
        documents: theirs.
    """

    def __init__(self, mixture: Sequence[Component], documents: Documents) -> None:
        self.mixture = mixture
        self.documents = documents
        self.passes = [Passes(documents, *documents.span(place)) for place in range(len(mixture))]
        # The one that leaves out its amount; where all have a ratio, the largest.
        fills = [(component.fills, component.ratio or 0) for component in mixture]
        self.filler = fills.index(max(fills))

    @property
    def nothing(self) -> Drawn:
        """No draw of any component."""
        return (0,) * len(self.mixture)

    def num_tokens(self, drawn: Drawn) -> int:
        """Tokens of the draws."""
        return sum(passes.tokens_of(count) for passes, count in zip(self.passes, drawn, strict=True))

    def pieces_between(self, earlier: Drawn, drawn: Drawn, sequence_length: int) -> Ints:
        """Of the documents drawn since `earlier`: how many pieces of each length best fit cuts them into (see `piece_lengths`)."""
        found = np.zeros(sequence_length + 1, dtype=np.int64)
        for passes, begin, end in zip(self.passes, earlier, drawn, strict=True):
            whole = end // len(passes) - -(-begin // len(passes))
            again = max(whole - 1, 0)  # whole passes that are as one that is counted
            for _, places in passes.draws(begin, end - again * len(passes)):
                times = 1 + again if len(places) == len(passes) else 1
                for some in blocks(places):
                    found += times * piece_lengths(self.documents.num_tokens[some], sequence_length)
        return found

    def up_to(self, num_tokens: int, earlier: Drawn, *, cross: bool) -> Drawn:
        """The draws for so many tokens, those of earlier stretches among them. What these drew too much of is not drawn again.

        Args:
            num_tokens: of all stretches; a component with a ratio is drawn so that it comes nearest to its share of them.
            earlier: what the stretches before it drew.
            cross: whether the component that fills shall reach the end, its last document crossing it; else it comes nearest to it.
        """
        counts = list(earlier)
        for place, (component, passes) in enumerate(zip(self.mixture, self.passes, strict=True)):
            if place != self.filler:
                amount = component.ratio * num_tokens if component.ratio is not None else (component.repetition or 0) * passes.num_tokens
                counts[place] = max(counts[place], passes.nearest(round(amount)))
        others = sum(passes.tokens_of(counts[place]) for place, passes in enumerate(self.passes) if place != self.filler)
        filler = self.passes[self.filler]
        left = num_tokens - others
        counts[self.filler] = max(counts[self.filler], filler.reaching(left) if cross else filler.nearest(left))
        return tuple(counts)

    def check(self, drawn: Drawn, earlier: Drawn, num_tokens: int) -> None:
        """Whether the data suffice.

        Args:
            drawn: up to the end of a stretch.
            earlier: up to its begin.
            num_tokens: the token budget up to its end.

        Raises:
            TooLittleData: a component would be passed over too often, or the others leave nothing to the one that fills.
        """
        filler = self.mixture[self.filler]
        if drawn[self.filler] == earlier[self.filler]:
            others = ", ".join(
                f"'{component.label}' {passes.tokens_of(count):,}"
                for component, passes, count in zip(self.mixture, self.passes, drawn, strict=True)
                if component is not filler
            )
            raise TooLittleData(
                f"the other components ({others}) take all of the {num_tokens:,} tokens and leave none to '{filler.label}': "
                "lower their repetition, or raise pretraining.optimization.token_budget"
            )
        for component, passes, count in zip(self.mixture, self.passes, drawn, strict=True):
            needed = passes.tokens_of(count)
            allowed = component.max_repetition * passes.num_tokens
            # A last document that crosses the end is no further pass.
            if passes.tokens_of(count - 1 if count else 0) >= round(allowed) and needed > allowed:
                total = min(self.num_tokens(drawn), num_tokens)
                raise TooLittleData(self._too_often(component, passes, min(needed, num_tokens), total, num_tokens))

    def _too_often(self, component: Component, passes: Passes, needed: int, num_drawn: int, num_tokens: int) -> str:
        available, allowed = passes.num_tokens, int(component.max_repetition * passes.num_tokens)
        more = needed / component.max_repetition - available
        # Of each token that is drawn less, the component gives its share; padding takes its part of the budget.
        share = component.ratio or 1 - sum(other.ratio or 0 for other in self.mixture)
        budget = int(num_tokens * (1 - (needed - allowed) / share / num_drawn))
        lower = f"lower pretraining.optimization.token_budget to at most {max(0, budget):,}" + (", or its ratio" if component.ratio else "")
        data = "add shards" if component.holds_documents else "add examples"
        return (
            f"component '{component.label}' has {len(passes):,} documents with {available:,} tokens and would need {needed:,} of the budget's {num_tokens:,}: "
            f"{needed / available:.2f} passes, more than its max_repetition {component.max_repetition:g}; {data} of {max(1, round(more)):,} tokens or "
            f"more, {lower}, or raise max_repetition"
        )

    def shuffled(self, drawn: Drawn, earlier: Drawn, *, last_stays: bool) -> Places:
        """The documents drawn since `earlier`, in training order.

        Args:
            last_stays: the last draw of the component that fills stands last.
        """
        ends = list(drawn)
        ends[self.filler] -= last_stays
        draws = [
            (number, places)
            for passes, begin, end in zip(self.passes, earlier, ends, strict=True)
            for number, places in passes.draws(begin, end)
        ]
        keyed = ((rekey(self.documents.keys[places], number), places) for number, group in draws for places in blocks(group))
        order = ordered(keyed, sum(len(places) for _, places in draws))
        return np.append(order, self.passes[self.filler].draws(ends[self.filler], drawn[self.filler])[0][1]) if last_stays else order

    def num_unused(self, drawn: Drawn) -> Ints:
        """How many documents of each source are never drawn."""
        unused = np.zeros(len(self.documents.sources), dtype=np.int64)
        for passes, count in zip(self.passes, drawn, strict=True):
            if count < len(passes):
                ((_, places),) = passes.draws(count, len(passes))
                unused += self.documents.count_by_source(self.documents.source_of(places))
        return unused


def ordered(keyed: Iterable[tuple[Keys, npt.NDArray[Any]]], count: int) -> Places:
    """Places in the order of their keys: of the upper halves, and where these are equal of the places; sorted in the memory of the keys.

    Args:
        keyed: keys and places, some at a time.
        count: of all.
    """
    combined = np.empty(count, dtype=np.uint64)
    filled = 0
    for keys, places in keyed:
        part = combined[filled : filled + len(places)]
        np.bitwise_and(keys, ~_LOW, out=part)
        part |= places.astype(np.uint64)
        filled += len(places)
    combined.sort()
    combined &= _LOW
    return combined.astype(np.uint32)
