"""Pairs of documents that may be duplicates, by locality-sensitive hashing, without comparing all with all.

A signature of `num_permutations` numbers is cut into `bands` of `rows` numbers each. Two documents are candidates if they agree in all
numbers of a band; of a pair with Jaccard similarity s that is so with probability 1 - (1 - s**rows)**bands (Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, 3.4.2). Documents with one id, or one text, are candidates too.

rensa's own index is not used: it takes no signatures that were stored, holds all of them in memory, and knows no order of documents. Here a
document costs 8 bytes a band in a file, and some 30 bytes of memory while one band after the other is sorted.
"""

from pathlib import Path
from typing import Any

import numpy as np

from instpt_assets.corpus.hashed_words import Hashes
from instpt_assets.corpus.signatures import Signatures

RECALL = 0.99
"""Least probability with which two documents of the threshold's similarity are candidates."""

Places = np.ndarray[Any, np.dtype[np.int64]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]


def bands_and_rows(threshold: float, num_permutations: int) -> tuple[int, int]:
    """The longest bands that make pairs at the threshold candidates with a probability of at least `RECALL`: the fewest false candidates.

    Short of that (a threshold near 0, a short signature) bands of one row, which are the best that there are.
    """
    for rows in range(num_permutations, 1, -1):
        bands = num_permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= RECALL:
            return bands, rows
    return num_permutations, 1


def band_keys(signatures: Signatures, bands: int, rows: int) -> Hashes:
    """(bands, documents): equal for equal bands, and hardly ever else."""
    random = np.random.Generator(np.random.PCG64(0))
    factors = random.integers(1 << 63, size=(bands, rows), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    cut = signatures[:, : bands * rows].reshape(len(signatures), bands, rows).astype(np.uint64)
    return np.einsum("dbr,br->bd", cut, factors)


def share_a_band(equal: _Flags, bands: int, rows: int) -> _Flags:
    """Of several pairs, (pairs, permutations) equal numbers: whether all of a band are."""
    whole = np.all(equal[:, : bands * rows].reshape(len(equal), bands, rows), axis=2)
    return np.asarray(np.any(whole, axis=1))


class Groups:
    """Of each key (an id, a text, a band) the documents that have it in common with others, and which of them stayed so far.

    Documents are gone through in order; each that stays is added to its groups, where later ones find it.

    Args:
        folder: for files of this object's, of 12 bytes for each key that a document has in common with others.
        keys: (keys, documents); read row by row.
    """

    def __init__(self, folder: Path, keys: Hashes) -> None:
        num_keys, num_documents = keys.shape
        grouped = np.zeros(num_documents, dtype=bool)
        sizes = [self._mark(keys[row], grouped) for row in range(num_keys)]
        self.documents = np.flatnonzero(grouped)
        """Numbers of the documents that are in a group, in order."""
        total = sum(sizes)
        dtype = np.int32 if max(total, num_documents) < 1 << 31 else np.int64
        self._first = scratch_array(folder / "first", (len(self.documents), num_keys), dtype)
        """Of a grouped document and a key, 1 + where its group begins; 0 where it has none."""
        self._stayed = scratch_array(folder / "stayed", (total,), dtype)
        """Each group has a place for each of its documents: from its beginning on stand those that stayed."""
        self._num_stayed = scratch_array(folder / "num_stayed", (total,), dtype)
        """At the beginning of a group, how many."""
        begin = 0
        for row in range(num_keys):
            members, starts = _sorted_groups(keys[row])
            self._first[np.searchsorted(self.documents, members), row] = starts + begin + 1
            begin += len(members)

    @staticmethod
    def _mark(keys: Hashes, grouped: _Flags) -> int:
        members, _ = _sorted_groups(keys)
        grouped[members] = True
        return len(members)

    def stayed(self, place: int, keys: slice) -> Places:
        """The documents that stayed and share one of these keys with the document at that place of `documents`; as places, in order."""
        groups = self._groups(place, keys)
        counts = self._num_stayed[groups]
        ends = counts.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        return np.unique(self._stayed[np.arange(total) + np.repeat(groups - ends + counts, counts)])

    def stays(self, place: int) -> None:
        """The document at that place of `documents` stays."""
        groups = self._groups(place, slice(None))
        self._stayed[groups + self._num_stayed[groups]] = place
        self._num_stayed[groups] += 1

    def _groups(self, place: int, keys: slice) -> Places:
        found: Places = self._first[place, keys]
        return found[found > 0] - 1


def _sorted_groups(keys: Hashes) -> tuple[Places, Places]:
    """The documents that share their key with others, group after group and in order in each; and for each where its group begins."""
    bits = np.uint64(max(len(keys) - 1, 1).bit_length())
    # The number stands in the place of the key's last bits, so that one sort orders both; it may join two keys, which verification parts.
    packed = (np.asarray(keys) >> bits << bits) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    as_before = np.zeros(len(packed) + 1, dtype=bool)
    np.equal(packed[1:] >> bits, packed[:-1] >> bits, out=as_before[1:-1])
    grouped = as_before[1:] | as_before[:-1]
    members = (packed[grouped] & np.uint64((1 << int(bits)) - 1)).astype(np.int64)
    begins = ~as_before[:-1][grouped]
    return members, np.flatnonzero(begins)[np.cumsum(begins) - 1]


def scratch_array(path: Path, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of zeros in a file, or in memory where it has no element."""
    if not all(shape):
        return np.zeros(shape, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="w+", shape=shape))  # an ordinary array is indexed several times faster
