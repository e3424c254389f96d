"""From training sequences back to passages and documents, and from a document to the sequences in which it stands.

A mixture names the tokenized artifacts that it was made from, these name theirs, and so on back to the source: all of it is followed through
manifests, so that what is found is what was trained on, whatever is current now.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from instpt_assets.errors import UserError
from instpt_assets.mixture.index import HELD_OUT_BOUNDS, HELD_OUT_PIECES, MixtureIndex
from instpt_assets.mixture.lookups import array_part, rows_at, rows_with
from instpt_assets.mixture.row_index import document_keys, stored_indices
from instpt_assets.mixture.sequences import Ints
from instpt_assets.mixture.traced import Document, Passage, Piece, Standing, TracedSequence
from instpt_assets.store.manifest import Input
from instpt_assets.store.store import Artifact, resolve

_EXCERPT_TOKENS, _EXCERPT_CHARACTERS = 32, 80
_BLOCK = 1 << 20
"""So many pieces are searched at a time."""

Source = tuple[str, str]
"""Asset and partition of a tokenized artifact."""


class TraceError(UserError):
    """What was asked for is not in the mixture; the message says what is."""


class Tracer:
    """Traces the sequences of one mixture.

    Args:
        mixture: the artifact.
    """

    def __init__(self, mixture: Artifact) -> None:
        self._store, self._mixture = mixture.store, mixture
        folder = mixture.local()
        self._index = MixtureIndex(folder)
        held_out = {HELD_OUT_PIECES, HELD_OUT_BOUNDS} <= set(mixture.names)
        self._held_out = MixtureIndex(folder, held_out=True) if held_out else None
        self.step_sequences: int = mixture.manifest.recipe["batch_tokens"] // self._index.sequence_length
        """Sequences that a training step takes."""

    def __len__(self) -> int:
        return len(self._index)

    def of_step(self, step: int) -> range:
        """The sequences that a training step takes; steps count from 1.

        Raises:
            TraceError: there is no such step.
        """
        num_steps = len(self) // self.step_sequences
        if not 1 <= step <= num_steps:
            raise TraceError(f"there is no step {step}: this mixture has steps 1 to {num_steps}")
        return range((step - 1) * self.step_sequences, step * self.step_sequences)

    def trace(self, sequences: Sequence[int], tokens: range | None = None) -> list[TracedSequence]:
        """What stands in training sequences.

        Args:
            sequences: their numbers, from 0.
            tokens: only these tokens of each sequence; their text is then decoded whole.

        Raises:
            TraceError: there is no such sequence, or it has no such tokens.
        """
        length = self._index.sequence_length
        for sequence in sequences:
            if not 0 <= sequence < len(self):
                raise TraceError(f"there is no sequence {sequence}: this mixture has sequences 0 to {len(self) - 1}")
        if tokens is not None and not 0 <= tokens.start < tokens.stop <= length:
            raise TraceError(f"there are no tokens {tokens.start} to {tokens.stop - 1}: a sequence has tokens 0 to {length - 1}")
        places = [place for sequence in sequences for place in self._places(sequence, tokens or range(length))]
        by_source: dict[int, list[_Place]] = defaultdict(list)
        for place in places:
            by_source[place.source].append(place)
        found = self._store.each(lambda own: self._pieces(own, whole=tokens is not None), by_source.values())
        pieces = {
            place: piece for own, source in zip(by_source.values(), found, strict=True) for place, piece in zip(own, source, strict=True)
        }
        return [
            TracedSequence(
                sequence=sequence,
                step=sequence // self.step_sequences + 1,
                num_tokens=length,
                num_padding=length - int(self._index.of_sequence(sequence)["count"].sum()),
                pieces=tuple(pieces[place] for place in places if place.sequence == sequence),
            )
            for sequence in sequences
        ]

    def standing(self, document_id: str) -> list[Standing]:
        """Where a document stands, in training order.

        Raises:
            TraceError: nothing that the mixture is made from holds it, it is held out, or it was not drawn.
        """
        rows = self._rows_with(document_id)
        if not rows:
            raise TraceError(f"no tokens that this mixture is made from hold a document '{document_id}': is that its whole id?")
        standing = [each for source, row in rows for each in self._standing(source, row)]
        if not standing and self._held_out is not None and any(_found(self._held_out, *place).size for place in rows):
            raise TraceError(f"document '{document_id}' is held out: no arm trains on it")
        if not standing:
            where = "; ".join(f"row {row} of {'/'.join(self._index.sources[source])}" for source, row in rows)
            raise TraceError(f"document '{document_id}' ({where}) was not drawn: the token budget took others")
        return sorted(standing, key=lambda each: (each.sequence, each.begin))

    @cached_property
    def _inputs(self) -> dict[Source, Input]:
        return {(item.asset, item.partition): item for item in self._mixture.manifest.inputs}

    def _artifact(self, source: int) -> Artifact:
        """A source of the mixture. Of thousands only those are looked up that are needed."""
        (artifact,) = resolve(self._store, [self._inputs[self._index.sources[source]]]).values()
        return artifact

    @cached_property
    def _decode(self) -> Callable[..., str] | None:
        from tokenizers import Tokenizer

        tokenizer = self._made_from(self._artifact(0), "tokenizer")
        if tokenizer is None:
            return None
        decode: Callable[..., str] = Tokenizer.from_file(str(tokenizer.file("tokenizer/tokenizer.json"))).decode
        return decode

    def _places(self, sequence: int, tokens: range) -> Iterable["_Place"]:
        """Where the pieces of a sequence lie, cut to some of its tokens."""
        position = 0
        for source, row, begin, count in self._index.of_sequence(sequence).tolist():
            first, end = max(position, tokens.start), min(position + count, tokens.stop)
            if first < end:
                yield _Place(sequence, first, source, row, begin + first - position, end - first)
            position += count

    def _pieces(self, places: list["_Place"], *, whole: bool) -> list[Piece]:
        """Pieces that lie in one source."""
        artifact = self._artifact(places[0].source)
        rows = rows_at(artifact, {place.row for place in places}, ["row_id", "document_ids", "num_tokens", "component"])
        known = self._origins(artifact, rows.values())
        return [
            replace(
                known[rows[place.row]["row_id"]],
                position=place.position,
                row=place.row,
                begin=place.begin,
                num_tokens=place.count,
                text=self._text(artifact, place, whole=whole),
            )
            for place in places
        ]

    def _origins(self, artifact: Artifact, rows: Collection[dict[str, Any]]) -> dict[str, Piece]:
        """What is known of rows of one source by their ids, the piece itself left open."""
        asset, shard = artifact.manifest.asset, artifact.manifest.partition
        ids = {name for row in rows for name in row["document_ids"]}
        texts: dict[str, dict[str, Any]] = {}
        passages: dict[str, dict[str, Any]] = {}
        clean: Artifact | None = None
        if asset == "tokenized_raw":
            clean = self._made_from(artifact, "clean_corpus")
        elif (augmented := self._made_from(artifact, "augmented_corpus")) is not None:
            clean, pairs = self._made_from(augmented, "clean_corpus"), self._made_from(augmented, "instruction_pairs")
            texts = rows_with(augmented, "text_id", {row["row_id"] for row in rows}, ["passage_ids", "layout"])
            if pairs is not None:
                names = {name for text in texts.values() for name in text["passage_ids"]}
                passages = rows_with(pairs, "passage_id", names, ["chain_id", "shot", "status", "pairs"])
        sources = {} if clean is None else rows_with(clean, "document_id", ids, ["source"])
        return {
            row["row_id"]: Piece(
                position=0,
                asset=asset,
                shard=shard,
                row=0,
                row_id=row["row_id"],
                begin=0,
                num_tokens=0,
                row_tokens=row["num_tokens"],
                text=None,
                documents=tuple(Document(name, sources.get(name, {}).get("source")) for name in row["document_ids"]),
                layout=texts.get(row["row_id"], {}).get("layout"),
                passages=tuple(_passage(name, passages.get(name)) for name in texts.get(row["row_id"], {}).get("passage_ids", ())),
                component=row.get("component"),
            )
            for row in rows
        }

    def _made_from(self, artifact: Artifact, stage: str) -> Artifact | None:
        """What an artifact was made from at some stage, of whatever pair set; None if it is no longer in the store."""
        named = [item for item in artifact.manifest.inputs if item.asset.split("/")[-1] == stage]
        return self._store.get(named[0].asset, named[0].partition, named[0].identity) if len(named) == 1 else None

    def _text(self, artifact: Artifact, place: "_Place", *, whole: bool) -> str | None:
        if self._decode is None:
            return None
        count = place.count if whole else min(place.count, _EXCERPT_TOKENS)
        first = int(array_part(artifact, "offsets.npy", place.row, place.row + 1)[0]) + place.begin
        text = self._decode(array_part(artifact, "tokens.npy", first, first + count).tolist(), skip_special_tokens=False)
        if whole:
            return text
        words = " ".join(text.split())
        return words if len(words) <= _EXCERPT_CHARACTERS and count == place.count else f"{words[:_EXCERPT_CHARACTERS].rstrip()} …"

    def _rows_with(self, document_id: str) -> list[tuple[int, int]]:
        """Source and row of the rows that hold a document."""
        corpus = document_id.split("/")[0]
        likely = {source: number for number, source in enumerate(self._index.sources) if source[1].split("--")[0] == corpus}
        artifacts = dict(zip(likely, self._store.each(self._artifact, likely.values()), strict=True))
        key = document_keys([document_id])
        found = []
        for source, index in stored_indices(self._store, artifacts).items():
            rows = np.flatnonzero(index().rows_with(key)).tolist()
            names = rows_at(artifacts[source], rows, ["document_ids"]) if rows else {}
            found += [(likely[source], row) for row in rows if document_id in names[row]["document_ids"]]
        return found

    def _standing(self, source: int, row: int) -> list[Standing]:
        asset, shard = self._index.sources[source]
        places = _found(self._index, source, row)
        if not len(places):
            return []
        (named,) = rows_at(self._artifact(source), [row], ["row_id", "num_tokens"]).values()
        sequences = np.searchsorted(self._index.bounds, places, side="right") - 1
        return [
            Standing(
                sequence=sequence,
                step=sequence // self.step_sequences + 1,
                asset=asset,
                shard=shard,
                row_id=named["row_id"],
                begin=int(piece["begin"]),
                num_tokens=int(piece["count"]),
                row_tokens=named["num_tokens"],
            )
            for sequence, piece in zip(sequences.tolist(), self._index.pieces[places], strict=True)
        ]


@dataclass(frozen=True)
class _Place:
    sequence: int
    position: int
    source: int
    row: int
    begin: int
    count: int


def _found(index: MixtureIndex, source: int, row: int) -> Ints:
    """Places of the pieces of a row."""
    found = []
    for first in range(0, len(index.pieces), _BLOCK):
        pieces = index.pieces[first : first + _BLOCK]
        found.append(first + np.flatnonzero((pieces["source"] == source) & (pieces["row"] == row)))
    return np.concatenate([*found, np.empty(0, dtype=np.int64)])


def _passage(name: str, row: dict[str, Any] | None) -> Passage:
    if row is None:
        return Passage(name, None, None, None, None)
    return Passage(name, row["chain_id"], row["shot"], row["status"], len(row["pairs"]))
