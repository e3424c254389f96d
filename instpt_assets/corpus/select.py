"""Choosing documents by a hash of their ids: the same document is chosen everywhere, whatever lies beside it."""

import hashlib


def selected(document_id: str, fraction: float) -> bool:
    """Whether a document is among the chosen `fraction` (0 to 1); a larger fraction keeps all that a smaller one chose."""
    return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:8]) < fraction * 2**64
