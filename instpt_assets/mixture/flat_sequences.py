"""Training sequences written out, so that they can be read with numpy alone, far from the tables and arrays that they were made from.

- `ids.npy` (uint16 or uint32, sequences x sequence_length): token ids;
- `loss.npy` (uint8, sequences x sequence_length / 8, rounded up): a bit a token, whether it has loss; missing where all tokens have;
- `starts.npy` (int32) and `starts_bounds.npy` (int64, sequences + 1): where documents begin; of sequence i, bounds[i] … bounds[i + 1] - 1;
- `sequences.json`: document_attention, and the statistics of the source.
"""

import json
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from instpt_assets.mixture.sequences import NO_LOSS, Ints, SequenceSource, TrainingSequence

IDS, LOSS, STARTS, STARTS_BOUNDS, SEQUENCES = "ids.npy", "loss.npy", "starts.npy", "starts_bounds.npy", "sequences.json"


def write_sequences(source: SequenceSource, folder: Path, *, vocab_size: int) -> None:
    """Write all sequences of a source (files: module docstring).

    Args:
        source: the sequences.
        folder: where; made.
        vocab_size: decides the type of the ids.
    """
    folder.mkdir(parents=True)
    num_sequences, length = len(source), source.sequence_length
    ids = open_memmap(folder / IDS, "w+", np.uint16 if vocab_size <= 65_536 else np.uint32, (num_sequences, length))
    loss = open_memmap(folder / LOSS, "w+", np.uint8, (num_sequences, -(-length // 8)))
    bounds = np.zeros(num_sequences + 1, dtype=np.int64)
    starts: list[Ints] = []
    all_have_loss = True
    for index in range(num_sequences):
        sequence = source.sequence(index)
        has_loss = sequence.labels != NO_LOSS
        assert np.array_equal(sequence.labels[has_loss], sequence.ids[has_loss]), "labels are the ids where there is loss"
        ids[index], loss[index] = sequence.ids, np.packbits(has_loss)
        starts.append(sequence.starts.astype(np.int32))
        bounds[index + 1] = bounds[index] + len(sequence.starts)
        all_have_loss &= bool(has_loss.all())
    ids.flush()
    loss.flush()
    if all_have_loss:
        (folder / LOSS).unlink()
    np.save(folder / STARTS, np.concatenate(starts) if starts else np.zeros(0, dtype=np.int32))
    np.save(folder / STARTS_BOUNDS, bounds)
    settings = {"document_attention": source.document_attention, "statistics": getattr(source, "statistics", {})}
    (folder / SEQUENCES).write_text(json.dumps(settings) + "\n", encoding="utf-8")


class FlatSequences:
    """Sequences that `write_sequences` wrote, memory-mapped.

    Args:
        folder: where they lie.

    Attributes:
        statistics: of the source that they were made from.
    """

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / SEQUENCES).read_text(encoding="utf-8"))
        self.document_attention: bool = settings["document_attention"]
        self.statistics: dict[str, object] = settings["statistics"]
        self._ids = np.load(folder / IDS, mmap_mode="r").view(np.ndarray)
        self._loss = np.load(folder / LOSS, mmap_mode="r").view(np.ndarray) if (folder / LOSS).exists() else None
        self._starts = np.load(folder / STARTS, mmap_mode="r").view(np.ndarray)
        self._bounds: Ints = np.load(folder / STARTS_BOUNDS)
        self.sequence_length: int = self._ids.shape[1]

    def __len__(self) -> int:
        return len(self._ids)

    def sequence(self, index: int) -> TrainingSequence:
        """One sequence.

        Raises:
            IndexError: there is no such sequence.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        ids = self._ids[index].astype(np.int64)
        labels = ids.copy()
        if self._loss is not None:
            labels[np.unpackbits(self._loss[index], count=len(ids)) == 0] = NO_LOSS
        return TrainingSequence(ids, labels, self._starts[self._bounds[index] : self._bounds[index + 1]].astype(np.int64))

    def describe(self, index: int) -> str:
        """Which sequence it is where the documents are known."""
        return f"{index} also where it was written out; a trace there names its documents"
