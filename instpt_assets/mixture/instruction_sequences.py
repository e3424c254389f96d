"""Instruction examples as training sequences, read at random access from memory-mapped tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instpt_assets.mixture.arrays import TokenizedRows
from instpt_assets.mixture.instructions import RESPONSE_SPANS, TUNING
from instpt_assets.mixture.ordering import rekey, row_keys
from instpt_assets.mixture.packing import best_fit
from instpt_assets.mixture.sequences import NO_LOSS, Ints, TrainingSequence

_NAMED = 5
"""So many of the examples that are too long are named."""


class InstructionSequences:
    """Instruction examples packed whole into sequences, in a random order and as many passes as it takes; loss on responses only.

    Each pass is packed by best fit and gives its sequences in an order of its own; what is left of a sequence is padded with EOS. The EOS
    that ends a response is learned with it. Examples longer than a sequence are left out.

    Args:
        folder: what `tokenize_instructions` wrote.
        components: of its components, those that have responses (`tuning_pairs`, `general`).
        num_sequences: how many sequences there shall be.
        seed: of the order.
        sequence_length: tokens a sequence.
        document_attention: whether attention and positions are confined to examples.

    Attributes:
        statistics: num_examples (that fit), num_too_long, too_long (row ids of the first of them), num_packed (examples in the sequences,
            repeats counted), repetition, num_response_tokens (with loss, EOS included), padding_fraction.

    Raises:
        ValueError: a component has no responses, or no example fits.
    """

    def __init__(
        self,
        folder: Path,
        components: Sequence[str],
        *,
        num_sequences: int,
        seed: int,
        sequence_length: int,
        document_attention: bool = False,
    ) -> None:
        if TUNING in components:
            raise ValueError(f"rows of '{TUNING}' have no single response; instruction tuning takes 'tuning_pairs' and 'general'")
        self.sequence_length, self.document_attention = sequence_length, document_attention
        self._rows = TokenizedRows(folder)
        self._spans: Ints = np.load(folder / RESPONSE_SPANS, mmap_mode="r")
        tokens = self._rows.num_tokens()
        member = np.isin(self._rows.column("component").to_numpy(), list(components))
        usable = np.flatnonzero(member & (tokens <= sequence_length))
        if not len(usable):
            raise ValueError(f"no example of {', '.join(components)} fits into {sequence_length} tokens")
        too_long = np.flatnonzero(member & (tokens > sequence_length))
        self._order, self._bounds = _packed_passes(usable, tokens[usable], num_sequences, sequence_length, seed=seed)
        packed = self._order
        self.statistics: dict[str, Any] = {
            "num_examples": len(usable),
            "num_too_long": len(too_long),
            "too_long": self._names(too_long[:_NAMED]),
            "num_packed": len(packed),
            "repetition": len(packed) / len(usable),
            "num_response_tokens": int((np.diff(self._spans, axis=1)[packed] + 1).sum()),
            "padding_fraction": 1 - float(tokens[packed].sum()) / (num_sequences * sequence_length),
        }

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def sequence(self, index: int) -> TrainingSequence:
        """One sequence; labels are the ids on responses and the EOS behind them."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        eos = int(self._rows.row(0)[-1])
        ids = np.full(self.sequence_length, eos, dtype=np.int64)
        labels = np.full(self.sequence_length, NO_LOSS, dtype=np.int64)
        begin, starts = 0, []
        for row in self._order[self._bounds[index] : self._bounds[index + 1]]:
            example = self._rows.row(row)
            response, end = self._spans[row] + begin
            ids[begin : begin + len(example)] = example
            labels[response : end + 1] = ids[response : end + 1]
            starts.append(begin)
            begin += len(example)
        if begin < self.sequence_length:
            starts.append(begin)
        return TrainingSequence(ids, labels, np.array(starts, dtype=np.int64))

    def describe(self, index: int) -> str:
        """The examples in the sequence."""
        return "; ".join(self._names(self._order[self._bounds[index] : self._bounds[index + 1]]))

    def _names(self, rows: Ints) -> list[str]:
        return [str(name) for name in self._rows.column("row_id").take(rows).to_pylist()] if len(rows) else []


def _packed_passes(usable: Ints, tokens: Ints, num_sequences: int, sequence_length: int, *, seed: int) -> tuple[Ints, Ints]:
    """Rows of the sequences, one behind the other, and the bounds [num_sequences + 1] of each; no row comes again before a pass is over.

    Args:
        usable: rows that fit.
        tokens: of each [usable].
    """
    keys = row_keys(f"{seed}/instructions", usable)
    rows: list[Ints] = []
    sizes = np.empty(0, dtype=np.int64)
    number = 0
    while len(sizes) < num_sequences:
        order = np.argsort(rekey(keys, number), kind="stable")
        packed = best_fit(tokens[order], sequence_length)
        first, size = packed.bounds[:-1], np.diff(packed.bounds)
        chosen = np.argsort(row_keys(f"{seed}/instructions/{number}", np.arange(len(size))), kind="stable")[: num_sequences - len(sizes)]
        first, size = first[chosen], size[chosen]
        pieces = np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)
        rows.append(usable[order[packed.document[pieces]]])
        sizes = np.append(sizes, size)
        number += 1
    return np.concatenate(rows), np.concatenate([[0], np.cumsum(sizes)])
