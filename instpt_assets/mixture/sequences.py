"""Training sequences: what training is fed with, whatever makes them."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

NO_LOSS = -100
"""Label of a token without loss."""

Ints = npt.NDArray[np.int64]


class TrainingSequence(NamedTuple):
    """One training sequence."""

    ids: Ints
    """Token ids [sequence_length]."""
    labels: Ints
    """[sequence_length]: the ids, not shifted, or -100 where there is no loss."""
    starts: Ints
    """Where documents begin [k], the first at 0; padding counts as a document."""


class SequenceSource(Protocol):
    """Sequences in training order."""

    sequence_length: int
    """Tokens a sequence."""
    document_attention: bool
    """Whether attention and positions are confined to documents."""

    def __len__(self) -> int: ...

    def sequence(self, index: int) -> TrainingSequence:
        """One sequence."""
        ...

    def describe(self, index: int) -> str:
        """One line that names what stands in the sequence, for messages to people."""
        ...
