"""The index of a mixture: which tokens of which tokenized rows make up each training sequence. It copies no token.

- `pieces.npy`: (source, row, begin, count) of each piece, in training order: tokens begin … begin + count - 1 of that row;
- `bounds.npy` (int64, sequences + 1): pieces bounds[i] … bounds[i + 1] - 1 make up sequence i; what they leave of it is padding;
- `sources.json`: sequence_length, num_sequences, packing, document_attention, and the sources (asset, partition) that pieces count;
- `held_out_pieces.npy`, `held_out_bounds.npy`: likewise sequences of documents that are held out of training, where the recipe has some.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from instpt_assets.mixture.sequences import Ints

PIECES, BOUNDS, SOURCES = "pieces.npy", "bounds.npy", "sources.json"
HELD_OUT_PIECES, HELD_OUT_BOUNDS = "held_out_pieces.npy", "held_out_bounds.npy"
PIECE_DTYPE = np.dtype([("source", "<i4"), ("row", "<i8"), ("begin", "<i4"), ("count", "<i4")])


class MixtureIndex:
    """A mixture's index, memory-mapped.

    Args:
        folder: the mixture.
        held_out: whether to read the sequences held out of training in place of the training sequences.

    Attributes:
        sequence_length: tokens a sequence.
        packing: how documents were packed (`Pretraining.packing`).
        document_attention: whether attention and positions are confined to documents.
        sources: asset and partition of each source.
        pieces: structured array [pieces] of `PIECE_DTYPE`.
        bounds: int64 [sequences + 1].
    """

    def __init__(self, folder: Path, *, held_out: bool = False) -> None:
        index: dict[str, Any] = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        self.sequence_length: int = index["sequence_length"]
        self.packing: str = index["packing"]
        self.document_attention: bool = index["document_attention"]
        self.sources: list[tuple[str, str]] = [(source["asset"], source["partition"]) for source in index["sources"]]
        # Plain views of the maps: slicing np.memmap itself costs several times as much.
        pieces, bounds = (HELD_OUT_PIECES, HELD_OUT_BOUNDS) if held_out else (PIECES, BOUNDS)
        self.pieces: npt.NDArray[Any] = np.load(folder / pieces, mmap_mode="r").view(np.ndarray)
        self.bounds: Ints = np.load(folder / bounds, mmap_mode="r").view(np.ndarray)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def of_sequence(self, index: int) -> npt.NDArray[Any]:
        """The pieces of one sequence.

        Raises:
            IndexError: there is no such sequence.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        return self.pieces[self.bounds[index] : self.bounds[index + 1]]
