"""Random orders by hash: a row's place depends on its label and index alone, on no library's generator and no other row.

So a new shard leaves the relative order of all other rows as it was, and arms that share a seed share their order. Keys are
SplitMix64 (Steele, Lea and Flood 2014) over row indices, offset by a BLAKE2 hash of the label.
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]


def row_keys(label: str, rows: npt.NDArray[np.int64]) -> Keys:
    """A 64-bit key for each row of what `label` names; sorting by it gives a random order."""
    offset = np.frombuffer(blake2b(label.encode(), digest_size=8).digest(), dtype="<u8")
    return _mix(_mix(rows.astype(np.uint64)) + offset)


def rekey(keys: Keys, number: npt.NDArray[np.int64] | int) -> Keys:
    """Keys of another order, independent of the first; each `number` gives one of its own."""
    return _mix(keys + _mix(np.atleast_1d(np.asarray(number, dtype=np.uint64))))


def _mix(values: Keys) -> Keys:
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
