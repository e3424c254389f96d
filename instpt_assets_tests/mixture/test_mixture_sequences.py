"""Sequences of a mixture: tokens, padding, where documents begin, what is held out, many sources."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from instpt_assets.mixture.arrays import RowWriter
from instpt_assets.mixture.index import BOUNDS, HELD_OUT_BOUNDS, HELD_OUT_PIECES, PIECE_DTYPE, PIECES, SOURCES
from instpt_assets.mixture.mixture_sequences import MixtureSequences
from instpt_assets.mixture.sequences import NO_LOSS

EOS, LENGTH = 0, 8
Pieces = list[tuple[int, int, int, int]]


def write_source(folder: Path, number: int, sizes: list[int]) -> Path:
    """Row r of source s holds the ids 100 s + 10 r + 1, …, and EOS."""
    with RowWriter(folder, vocab_size=70_000, eos_id=EOS) as writer:
        ids = [[100 * number + 10 * row + place + 1 for place in range(size - 1)] for row, size in enumerate(sizes)]
        names = [f"{number}/{row}" for row in range(len(sizes))]
        writer.append(*writer.flatten(ids), {"row_id": names, "document_ids": [[name] for name in names], "num_bytes": sizes})
    return folder


def write_index(folder: Path, sequences: list[Pieces], *, num_sources: int, held_out: list[Pieces], document_attention: bool) -> None:
    folder.mkdir()
    for (pieces, bounds), parts in (((PIECES, BOUNDS), sequences), ((HELD_OUT_PIECES, HELD_OUT_BOUNDS), held_out)):
        np.save(folder / pieces, np.array([piece for part in parts for piece in part], dtype=PIECE_DTYPE))
        np.save(folder / bounds, np.cumsum([0, *map(len, parts)]))
    index = {
        "sequence_length": LENGTH,
        "num_sequences": len(sequences),
        "packing": "best_fit",
        "document_attention": document_attention,
        "sources": [{"asset": "tokenized_raw", "partition": f"c--{number}"} for number in range(num_sources)],
    }
    (folder / SOURCES).write_text(json.dumps(index))


@pytest.fixture
def mixture(tmp_path: Path) -> MixtureSequences:
    folders = {("tokenized_raw", f"c--{number}"): write_source(tmp_path / str(number), number, [4, 3, 9]) for number in range(2)}
    write_index(
        tmp_path / "mixture",
        [[(1, 0, 0, 4), (0, 1, 0, 3)], [(1, 2, 1, 8)], [(0, 2, 0, 3), (0, 0, 0, 4), (1, 0, 3, 1)], [(0, 0, 0, 1)] * 6, [(0, 0, 0, 1)] * 7],
        num_sources=2,
        held_out=[[(0, 1, 0, 3)]],
        document_attention=True,
    )
    return MixtureSequences(tmp_path / "mixture", folders)


def test_sequences_hold_the_pieces_padding_has_no_loss_and_starts_are_where_documents_begin(mixture: MixtureSequences) -> None:
    assert (len(mixture), mixture.sequence_length, mixture.document_attention) == (5, LENGTH, True)
    padded, one, full = (mixture.sequence(index) for index in range(3))
    assert padded.ids.tolist() == [101, 102, 103, EOS, 11, 12, EOS, EOS]
    assert padded.labels.tolist() == [101, 102, 103, EOS, 11, 12, EOS, NO_LOSS]
    assert padded.starts.tolist() == [0, 4, 7]
    assert one.ids.tolist() == one.labels.tolist() == [*range(122, 129), EOS]
    assert one.starts.tolist() == [0]
    assert full.ids.tolist() == full.labels.tolist() == [21, 22, 23, 1, 2, 3, EOS, EOS]
    assert full.starts.tolist() == [0, 3, 7]
    assert all(part.dtype == np.int64 for sequence in (padded, one, full) for part in sequence)
    for index in (-1, 5):
        with pytest.raises(IndexError):
            mixture.sequence(index)


def test_a_description_names_documents_and_shards(mixture: MixtureSequences) -> None:
    assert mixture.describe(0) == "1/0 (tokenized_raw/c--1); 0/1 (tokenized_raw/c--0)"
    assert "more" not in mixture.describe(3)
    assert mixture.describe(4).endswith("0/0 (tokenized_raw/c--0); and 1 more")


def test_held_out_sequences_are_read_like_the_others(mixture: MixtureSequences, tmp_path: Path) -> None:
    folders = {("tokenized_raw", f"c--{number}"): tmp_path / str(number) for number in range(2)}
    held_out = MixtureSequences(tmp_path / "mixture", folders, held_out=True)
    assert [held_out.sequence(index).ids.tolist() for index in range(len(held_out))] == [[11, 12, EOS, EOS, EOS, EOS, EOS, EOS]]


def test_more_sources_than_files_may_be_open_are_read(tmp_path: Path) -> None:
    num_sources = 400
    folders = {("tokenized_raw", f"c--{n}"): write_source(tmp_path / str(n), n, [8]) for n in range(num_sources)}
    sequences = [[(n, 0, 0, 8)] for n in range(num_sources)]
    write_index(tmp_path / "mixture", sequences, num_sources=num_sources, held_out=[], document_attention=False)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
        source = MixtureSequences(tmp_path / "mixture", folders)
        assert [int(source.sequence(n).ids[0]) for n in range(num_sources)] == [100 * n + 1 for n in range(num_sources)]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(2 * num_sources + 512, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
