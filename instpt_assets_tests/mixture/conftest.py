"""What the tests of this room share: a small tokenizer."""

from pathlib import Path

import pytest

from instpt_assets.mixture.tokenizer import train_tokenizer

PROSE = "The array returns a copy of its elements along an axis.\n\nIt raises an error when shapes differ, and 数組 Grüße.\n"


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE folder of 330 tokens."""
    out = tmp_path_factory.mktemp("shared_tokenizer")
    train_tokenizer([PROSE] * 20, 330, out=out)
    return out / "tokenizer"
