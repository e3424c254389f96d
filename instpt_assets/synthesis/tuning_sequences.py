"""Training sequences of the synthesizer: the curriculum's phases, then the tuning collection, in the prompt format of PAPER.md section 1.

One-shot examples of the same dataset are concatenated up to the sequence length, so the model learns to continue a pattern of pairs. Loss
on the pairs only. Encoding goes through `PromptFormat`, as in synthesis.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import polars as pl

from instpt_assets.mixture.sequences import NO_LOSS, TrainingSequence
from instpt_assets.recipe.synthesis import Curriculum
from instpt_assets.synthesis.curriculum import repeated_spans, short_examples
from instpt_assets.synthesis.prompt import Pair, PromptFormat

PAD_ID = 0
FIRST_ORDINARY_ID = 3
"""Below it lie `<pad>`, `<s>` and `</s>` of a synthesizer's own tokenizer; its markers lie behind the vocabulary."""

Example = tuple[np.ndarray, np.ndarray]
"""Ids and labels of one shot, int64 [n] each."""


@dataclass(frozen=True)
class Phase:
    """One part of the training: `num_sequences` sequences, from packed examples (cycled through) or, without any, of random spans."""

    name: str
    num_sequences: int
    packed: tuple[tuple[Example, ...], ...]


class TuningSequences:
    """The training sequences of a synthesizer, in order: phase by phase, within the token budget.

    Args:
        collection: Folder of a tuning collection; its held-out contexts are left out.
        prompt: The prompt format of the synthesizer's tokenizer.
        vocab_size: Of that tokenizer, its markers not counted.
        sequence_length: Tokens a sequence.
        token_budget: Tokens of all sequences together, padding included.
        curriculum: The phases before the collection, for a model from a random start.
        texts: What the curriculum's passages are cut from.
        seed: Seed of all draws; the same arguments give the same sequences.

    Raises:
        ValueError: No context of the collection, or none of the curriculum's passages, fits into a sequence with a pair, or the curriculum
            leaves none of the budget.
    """

    document_attention = False
    """An example sees those before it: the model learns to continue a pattern of pairs."""

    def __init__(
        self,
        collection: Path,
        prompt: PromptFormat,
        *,
        vocab_size: int,
        sequence_length: int,
        token_budget: int,
        curriculum: Curriculum | None = None,
        texts: Iterable[str] = (),
        seed: int = 0,
    ) -> None:
        started = monotonic()
        self.sequence_length = sequence_length
        self._prompt, self._vocab_size, self._seed = prompt, vocab_size, seed
        self._left_out = 0
        self._phases: list[Phase] = []
        rng = random.Random(seed)
        total = max(1, token_budget // sequence_length)
        if curriculum is not None:
            self._phases.append(Phase("repeated_spans", curriculum.span_copy_tokens // sequence_length, ()))
            num_rote = curriculum.rote_tokens // sequence_length
            if num_rote:
                shots = (self._encode(context, pairs) for context, pairs in short_examples(texts, rng))
                packed = self._pack(_first(shots, curriculum.rote_tokens), rng)
                if not packed:
                    raise ValueError(f"the curriculum's texts give no short passage with pairs that fits into {sequence_length} tokens")
                self._phases.append(Phase("short_examples", num_rote, packed))
        left = total - sum(phase.num_sequences for phase in self._phases)
        if left < 1:
            raise ValueError(
                f"token_budget {token_budget} leaves nothing for the tuning data behind the curriculum: raise it, or lower its tokens"
            )
        self._phases.append(Phase("tuning", left, self._tuning(collection, left * sequence_length, rng)))
        self._seconds = monotonic() - started

    def __len__(self) -> int:
        return sum(phase.num_sequences for phase in self._phases)

    def sequence(self, index: int) -> TrainingSequence:
        """One sequence, of examples of one dataset or of repeated spans.

        Raises:
            IndexError: `index` is not in 0 … len - 1.
        """
        return self._sequence_of(*self._place(index))

    def describe(self, index: int) -> str:
        """The phase that the sequence belongs to and its place there."""
        phase, position = self._place(index)
        return f"sequence {position} of the phase '{phase.name}'"

    @property
    def statistics(self) -> dict[str, Any]:
        """Sequences and passes by phase, how many contexts were too long for a sequence, and the share of tokens under the loss."""
        filled = [part for phase in self._phases for sequence in phase.packed for part in sequence]
        tokens = sum(len(ids) for ids, _ in filled)
        return {
            "phases": [
                {
                    "name": p.name,
                    "num_sequences": p.num_sequences,
                    "passes": round(p.num_sequences / len(p.packed), 2) if p.packed else None,
                }
                for p in self._phases
            ],
            "num_examples": len(filled),
            "num_contexts_left_out": self._left_out,
            "filled_share": round(tokens / (self.sequence_length * max(1, sum(len(p.packed) for p in self._phases))), 4),
            "loss_share": round(sum(int((labels != NO_LOSS).sum()) for _, labels in filled) / max(1, tokens), 4),
            "prepare_seconds": round(self._seconds, 2),
        }

    def _place(self, index: int) -> tuple[Phase, int]:
        position = index
        for phase in self._phases:
            if 0 <= position < phase.num_sequences:
                return phase, position
            position -= phase.num_sequences
        raise IndexError(index)

    def _sequence_of(self, phase: Phase, position: int) -> TrainingSequence:
        if not phase.packed:
            draws = np.random.default_rng((self._seed, position))
            spans = repeated_spans(self.sequence_length, FIRST_ORDINARY_ID, self._vocab_size, draws)
            return TrainingSequence(*spans, starts=np.zeros(1, dtype=np.int64))
        passed, place = divmod(position, len(phase.packed))
        order = np.random.default_rng((self._seed, 1, passed)).permutation(len(phase.packed))
        ids = np.full(self.sequence_length, PAD_ID, dtype=np.int64)
        labels = np.full(self.sequence_length, NO_LOSS, dtype=np.int64)
        start, starts = 0, []
        for part_ids, part_labels in phase.packed[order[place]]:
            ids[start : start + len(part_ids)], labels[start : start + len(part_ids)] = part_ids, part_labels
            starts.append(start)
            start += len(part_ids)
        if start < self.sequence_length:
            starts.append(start)
        return TrainingSequence(ids, labels, np.array(starts, dtype=np.int64))

    def _tuning(self, collection: Path, num_tokens: int, rng: random.Random) -> tuple[tuple[Example, ...], ...]:
        table = pl.read_parquet(collection / "data-*.parquet", columns=["dataset", "split", "context", "pairs"]).filter(
            pl.col("split") == "train"
        )
        share = num_tokens / max(1, table.height)
        packed: list[tuple[Example, ...]] = []
        for dataset in sorted(table["dataset"].unique()):
            rows = (
                table.filter(pl.col("dataset") == dataset)
                .select("context", "pairs")
                .sample(fraction=1.0, shuffle=True, seed=rng.randrange(2**31))
                .rows()
            )
            shots = (self._encode(context, [Pair.from_struct(pair) for pair in pairs]) for context, pairs in rows)
            packed += self._pack(_first(shots, round(share * len(rows))), rng)
        if not packed:
            raise ValueError(
                f"no context of the tuning collection fits into {self.sequence_length} tokens with a pair; raise sequence_length"
            )
        return tuple(packed)

    def _encode(self, context: str, pairs: Sequence[Pair]) -> Example | None:
        """A shot with as many of its pairs as fit; None if there is no room for one."""
        head = self._prompt.encode_context(context)
        kept = list(pairs)
        while kept and len(head) + len(tail := self._prompt.encode_pairs(kept)) > self.sequence_length:
            kept.pop()
        if not kept:
            self._left_out += 1
            return None
        return np.array([*head, *tail], dtype=np.int64), np.array([NO_LOSS] * len(head) + tail, dtype=np.int64)

    def _pack(self, shots: Iterable[Example], rng: random.Random) -> tuple[tuple[Example, ...], ...]:
        """Sequences of shots in random order, each shot put where it leaves the least room of the last few sequences."""
        full: list[list[Example]] = []
        open_: list[tuple[int, list[Example]]] = []
        for shot in shots:
            fitting = [(room - len(shot[0]), i) for i, (room, _) in enumerate(open_) if room >= len(shot[0])]
            if fitting:
                room, i = min(fitting)
                open_[i] = (room, [*open_[i][1], shot])
            else:
                open_.append((self.sequence_length - len(shot[0]), [shot]))
            if len(open_) > 16:
                full.append(open_.pop(min(range(len(open_)), key=lambda i: open_[i][0]))[1])
        full += [shots for _, shots in open_]
        rng.shuffle(full)
        return tuple(tuple(shots) for shots in full)


def _first(shots: Iterable[Example | None], num_tokens: int) -> Iterator[Example]:
    """The shots up to `num_tokens` tokens; no more is encoded than training needs."""
    for shot in shots:
        if num_tokens <= 0:
            return
        if shot is not None:
            num_tokens -= len(shot[0])
            yield shot
