"""Augmented texts with the passages that they are made of: both tables of a shard read side by side, in order, each once."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from instpt_assets.augmentation.layouts import Pair
from instpt_assets.augmentation.tables import batches, column, pair_lists

_PAIR_COLUMNS = ("passage_id", "text", "status", "pairs", "num_rejected_pairs", "num_completion_tokens")
_TEXT_COLUMNS = ("text_id", "text", "passage_ids", "num_pairs", "layout", "license", "metadata")


class Passage:
    """A row of `instruction_pairs`. Its text is converted when it is asked for: most are only counted."""

    __slots__ = ("_batch", "_place", "num_characters", "num_rejected", "num_tokens", "pairs", "passage_id", "status")

    def __init__(self, batch: pa.RecordBatch, place: int, values: Sequence[Any]) -> None:
        self._batch, self._place = batch, place
        self.passage_id, self.status, self.num_rejected, self.num_tokens, self.num_characters, self.pairs = values

    passage_id: str
    status: str
    num_rejected: int | None
    num_tokens: int | None
    num_characters: int
    pairs: Sequence[Pair]

    @property
    def text(self) -> str:
        """The passage's text."""
        return str(self._batch.column("text")[self._place].as_py())


class Text:
    """A row of `augmented_corpus` with its passages. What few are asked for is converted when it is asked for."""

    __slots__ = ("_batch", "_place", "layout", "num_characters", "num_pairs", "passages", "text_id")

    def __init__(self, batch: pa.RecordBatch, place: int, values: Sequence[Any], passages: Sequence[Passage]) -> None:
        self._batch, self._place = batch, place
        self.text_id, self.num_pairs, self.layout, self.num_characters = values
        self.passages = passages

    text_id: str
    num_pairs: int
    layout: str
    num_characters: int
    passages: Sequence[Passage]

    @property
    def text(self) -> str:
        """The augmented text."""
        return str(self._value("text"))

    @property
    def licenses(self) -> list[str | None]:
        """One a passage."""
        return list(self._value("license"))

    @property
    def metadata(self) -> list[str | None]:
        """JSON text, one a passage."""
        return list(self._value("metadata"))

    def _value(self, name: str) -> Any:
        return self._batch.column(name)[self._place].as_py()


def read_texts(pairs_tables: Iterable[Path], text_tables: Iterable[Path]) -> Iterator[Text]:
    """The texts of one shard, in order; passages that the pair set did not choose are passed over.

    Raises:
        ValueError: the tables do not belong together.
    """
    passages = (passage for passage in _passages(pairs_tables) if passage.status != "not_selected")
    for batch in batches(text_tables, _TEXT_COLUMNS):
        lengths = pc.utf8_length(batch.column("text")).to_pylist()
        rows = zip(*(column(batch, name) for name in ("text_id", "num_pairs", "layout")), lengths, strict=True)
        for place, (values, passage_ids) in enumerate(zip(rows, column(batch, "passage_ids"), strict=True)):
            members = [passage for _, passage in zip(passage_ids, passages, strict=False)]
            if [passage.passage_id for passage in members] != passage_ids:
                raise ValueError(f"{values[0]}: instruction_pairs and augmented_corpus do not belong together: materialize both again")
            yield Text(batch, place, values, members)
    left = next(passages, None)
    if left is not None:
        raise ValueError(
            f"{left.passage_id} is in no text: instruction_pairs and augmented_corpus do not belong together: materialize both again"
        )


def _passages(tables: Iterable[Path]) -> Iterator[Passage]:
    for batch in batches(tables, _PAIR_COLUMNS):
        rows = zip(
            *(column(batch, name) for name in ("passage_id", "status", "num_rejected_pairs", "num_completion_tokens")),
            pc.utf8_length(batch.column("text")).to_pylist(),
            pair_lists(batch.column("pairs")),
            strict=True,
        )
        for place, values in enumerate(rows):
            yield Passage(batch, place, values)
