"""The training sequences of a mixture, read at random access from memory-mapped tokens."""

import resource
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from instpt_assets.mixture.arrays import TokenizedRows
from instpt_assets.mixture.index import MixtureIndex
from instpt_assets.mixture.sequences import NO_LOSS, TrainingSequence

_SPARE_FILES = 512
"""File descriptors left to the rest of the process."""
_NAMED = 6
"""Rows that a description names."""


class MixtureSequences:
    """The sequences of a mixture; loss on all tokens but padding, which is EOS.

    Args:
        folder: what `build_mixture` wrote.
        source_folders: the tokenized artifacts that it names, by asset and partition.
        held_out: whether to read the sequences held out of training in place of the training sequences.

    Raises:
        ValueError: a source is missing.
    """

    def __init__(self, folder: Path, source_folders: Mapping[tuple[str, str], Path], *, held_out: bool = False) -> None:
        self._index = MixtureIndex(folder, held_out=held_out)
        self.sequence_length = self._index.sequence_length
        self.document_attention = self._index.document_attention
        sources = self._index.sources
        missing = [f"{asset}/{partition}" for asset, partition in sources if (asset, partition) not in source_folders]
        if missing:
            raise ValueError(f"the mixture names tokens that are not given: {', '.join(missing)}")
        folders = [source_folders[source] for source in sources]
        self._rows = lru_cache(maxsize=_max_open_sources(len(folders)))(lambda source: TokenizedRows(folders[source]))

    def __len__(self) -> int:
        return len(self._index)

    def sequence(self, index: int) -> TrainingSequence:
        """One sequence.

        Raises:
            IndexError: there is no such sequence.
        """
        pieces = self._index.of_sequence(index)
        ids = np.empty(self.sequence_length, dtype=np.int64)
        filled = 0
        for source, row, begin, count in pieces.tolist():
            rows = self._rows(source)
            first = rows.offsets[row] + begin
            ids[filled : filled + count] = rows.tokens[first : first + count]
            filled += count
        labels = ids.copy()
        ends = np.cumsum(pieces["count"], dtype=np.int64)
        if filled < self.sequence_length:
            ids[filled:] = rows.tokens[rows.offsets[row + 1] - 1]  # every row ends in EOS
            labels[filled:] = NO_LOSS
            return TrainingSequence(ids, labels, starts=np.concatenate([[0], ends]))
        return TrainingSequence(ids, labels, starts=np.concatenate([[0], ends[:-1]]))

    def describe(self, index: int) -> str:
        """The first rows (documents, augmented texts, instructions) in the sequence, where they lie, and how many more there are."""
        pieces = self._index.of_sequence(index)
        named = [
            f"{self._rows(source).column('row_id')[row]} ({'/'.join(self._index.sources[source])})"
            for source, row, _, _ in pieces[:_NAMED].tolist()
        ]
        return "; ".join([*named, *([f"and {len(pieces) - _NAMED} more"] if len(pieces) > _NAMED else [])])


def _max_open_sources(num_sources: int) -> int:
    """How many sources may be open at a time: each holds two file descriptors, and a process may open only so many files.

    That limit is raised as far as this process may, since opening a source again and again costs a hundred times as much as reading from it.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * num_sources + _SPARE_FILES
    if limit != resource.RLIM_INFINITY and limit < wanted:
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    return num_sources if limit == resource.RLIM_INFINITY else max(16, min(num_sources, (limit - _SPARE_FILES) // 2))
