"""What a trace finds: sequences, their pieces, passages and documents; and where a document stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A document and where it was read from."""

    document_id: str
    source: str | None
    """The raw file or source; None if the clean corpus is no longer in the store."""


@dataclass(frozen=True)
class Passage:
    """A passage of an augmented text."""

    passage_id: str
    chain_id: str | None
    shot: int | None
    status: str | None
    num_pairs: int | None
    """Valid pairs that were written to it; these four are None if the pairs are no longer in the store."""


@dataclass(frozen=True)
class Piece:
    """Part of a tokenized row that stands in a training sequence."""

    position: int
    """Its first token in the sequence."""
    asset: str
    shard: str
    row: int
    row_id: str
    begin: int
    """Its first token in the row."""
    num_tokens: int
    row_tokens: int
    """Tokens of the whole row, its EOS included."""
    text: str | None
    """Decoded: the whole piece, or its first words; None if the tokenizer is no longer in the store."""
    documents: tuple[Document, ...] = ()
    layout: str | None = None
    """Of an augmented text."""
    passages: tuple[Passage, ...] = ()
    """Of an augmented text: those of the whole row, in order."""
    component: str | None = None
    """Of an instruction row: which instructions it belongs to."""


@dataclass(frozen=True)
class TracedSequence:
    """A training sequence."""

    sequence: int
    step: int
    """The training step that takes it, counted from 1."""
    num_tokens: int
    num_padding: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Standing:
    """A piece of a row that holds a document."""

    sequence: int
    step: int
    asset: str
    shard: str
    row_id: str
    begin: int
    num_tokens: int
    row_tokens: int
