"""Tokenized artifacts that are nothing but row lengths and ids of documents."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.row_index import RowIndex


def rows(
    num_tokens: npt.ArrayLike, documents: Sequence[Sequence[int]] | npt.NDArray[np.uint64], components: Sequence[str] = ()
) -> Callable[[], RowIndex]:
    """An artifact of rows with so many tokens that hold these documents; of instructions, with the component of each row.

    Args:
        num_tokens: [rows].
        documents: [rows]: the hashes of a row's documents; or an array [rows] of one hash each.
        components: [rows]: of instructions.
    """
    names, component = np.unique(np.array(list(components), dtype=str), return_inverse=True)
    one_each = isinstance(documents, np.ndarray)
    found = RowIndex(
        num_tokens=np.asarray(num_tokens, dtype=np.int32),
        num_documents=np.ones(len(documents), np.uint8) if one_each else np.array([len(row) for row in documents], dtype=np.uint8),
        documents=documents if one_each else np.array([document for row in documents for document in row], dtype=np.uint64),
        components=names,
        component=component.astype(np.uint8),
    )
    return lambda: found
