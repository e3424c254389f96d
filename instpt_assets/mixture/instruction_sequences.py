"""Instruction examples as training sequences, read at random access from memory-mapped tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from instpt_assets.mixture.arrays import TokenizedRows
from instpt_assets.mixture.instructions import RESPONSE_SPANS, TUNING
from instpt_assets.mixture.ordering import rekey, row_keys
from instpt_assets.mixture.sequences import NO_LOSS, Ints, TrainingSequence


class InstructionSequences:
    """Instruction examples packed whole into sequences, in a random order and as many passes as it takes; loss on responses only.

    An example joins a sequence if it fits, else begins the next; the rest of a sequence is padded with EOS. The EOS that ends a
    response is learned with it. Examples longer than a sequence are left out.

    Args:
        folder: what `tokenize_instructions` wrote.
        components: of its components, those that have responses (`tuning_pairs`, `general`).
        num_sequences: how many sequences there shall be.
        seed: of the order.
        sequence_length: tokens a sequence.

    Attributes:
        statistics: num_examples (that fit), num_too_long, num_packed (examples in the sequences, repeats counted), repetition,
            num_response_tokens (with loss, EOS included), padding_fraction.

    Raises:
        ValueError: a component has no responses, or no example fits.
    """

    document_attention = False

    def __init__(self, folder: Path, components: Sequence[str], *, num_sequences: int, seed: int, sequence_length: int) -> None:
        if TUNING in components:
            raise ValueError(f"rows of '{TUNING}' have no single response; instruction tuning takes 'tuning_pairs' and 'general'")
        self.sequence_length = sequence_length
        self._rows = TokenizedRows(folder)
        self._spans: Ints = np.load(folder / RESPONSE_SPANS, mmap_mode="r")
        tokens = self._rows.num_tokens()
        member = np.isin(self._rows.column("component").to_numpy(), list(components))
        usable = np.flatnonzero(member & (tokens <= sequence_length))
        if not len(usable):
            raise ValueError(f"no example of {', '.join(components)} fits into {sequence_length} tokens")
        self._order = _passes(usable, tokens, seed=seed, num_tokens=num_sequences * sequence_length)
        self._bounds = _pack(tokens[self._order], num_sequences, sequence_length)
        packed = self._order[: self._bounds[-1]]
        self.statistics: dict[str, Any] = {
            "num_examples": len(usable),
            "num_too_long": int(member.sum()) - len(usable),
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
        names = self._rows.column("row_id")
        return "; ".join(names[int(row)].as_py() for row in self._order[self._bounds[index] : self._bounds[index + 1]])


def _passes(usable: Ints, tokens: Ints, *, seed: int, num_tokens: int) -> Ints:
    """Passes over the examples, each in an order of its own, that hold `num_tokens` tokens or more."""
    keys = row_keys(f"{seed}/instructions", usable)
    count = -(-num_tokens // int(tokens[usable].sum()))
    return np.concatenate([usable[np.argsort(rekey(keys, number), kind="stable")] for number in range(count)])


def _pack(tokens: Ints, num_sequences: int, sequence_length: int) -> Ints:
    """Bounds [num_sequences + 1] of the examples of each sequence."""
    ends = np.cumsum(tokens)
    bounds = np.zeros(num_sequences + 1, dtype=np.int64)
    for index in range(num_sequences):
        first = bounds[index]
        filled = ends[first - 1] if first else 0
        bounds[index + 1] = np.searchsorted(ends, filled + sequence_length, side="right")
    return bounds
