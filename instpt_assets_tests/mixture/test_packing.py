"""Packing: every token of what is packed once, in order; best fit against a plain implementation of it."""

from itertools import pairwise

import numpy as np
import pytest

from instpt_assets.mixture.packing import Packed, best_fit, concatenate, num_best_fit_sequences, piece_lengths


def room_left(tokens: list[int], length: int) -> list[int]:
    """Best-fit decreasing as it is written in books: the room that each sequence has left."""
    rooms: list[int] = []
    for piece in sorted((min(length, size - begin) for size in tokens for begin in range(0, size, length)), reverse=True):
        fitting = [(room - piece, place) for place, room in enumerate(rooms) if room >= piece]
        if fitting:
            rooms[min(fitting)[1]] -= piece
        else:
            rooms.append(length - piece)
    return sorted(rooms)


def filled(packed: Packed) -> list[int]:
    """Tokens in each sequence."""
    return [int(packed.count[first:end].sum()) for first, end in pairwise(packed.bounds)]


def times_seen(packed: Packed, tokens: np.ndarray) -> list[np.ndarray]:
    """How often each token of each document stands in a sequence."""
    seen = [np.zeros(size, dtype=int) for size in tokens]
    for document, begin, count in zip(packed.document, packed.begin, packed.count, strict=True):
        assert count > 0 and begin + count <= tokens[document]
        seen[document][begin : begin + count] += 1
    return seen


@pytest.mark.parametrize("seed", range(25))
def test_best_fit_fills_sequences_as_the_plain_algorithm_does_with_every_token_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 60))
    tokens = rng.integers(1, int(rng.integers(2, 150)), int(rng.integers(0, 120)))
    packed = best_fit(tokens, length)
    assert sorted(length - size for size in filled(packed)) == room_left(tokens.tolist(), length)
    assert num_best_fit_sequences(piece_lengths(tokens, length)) == len(packed.bounds) - 1
    assert all((seen == 1).all() for seen in times_seen(packed, tokens))
    # Cut are only documents that are longer than a sequence, and those at its multiples.
    assert (packed.begin % length == 0).all()
    assert ((packed.count == tokens[packed.document]) | (tokens[packed.document] > length)).all()
    assert all((np.diff(packed.document[first:end]) > 0).all() for first, end in pairwise(packed.bounds))


@pytest.mark.parametrize("seed", range(25))
def test_concatenated_documents_fill_sequences_in_order_and_only_the_last_tokens_are_left_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 60))
    tokens = rng.integers(0, int(rng.integers(2, 150)), int(rng.integers(0, 120)))
    packed = concatenate(tokens, length)
    total = int(tokens.sum())
    assert filled(packed) == [length] * (total // length)
    stream = np.concatenate([*times_seen(packed, tokens), np.empty(0, int)])
    assert stream.tolist() == [1] * (total - total % length) + [0] * (total % length)
    assert (np.diff(packed.document) >= 0).all()


def test_packing_depends_on_the_documents_alone() -> None:
    tokens = np.random.default_rng(0).integers(1, 500, 5_000)
    one, two = best_fit(tokens, 128), best_fit(tokens.astype(np.int32), 128)
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in ("document", "begin", "count", "bounds"))
    # Documents of one length change places with the order in which they are given; how many sequences there are does not.
    assert len(best_fit(tokens[::-1].copy(), 128).bounds) == len(one.bounds)


def test_millions_of_documents_cost_the_work_of_their_lengths() -> None:
    """A decision a document would take minutes here."""
    tokens = np.random.default_rng(0).integers(1, 1000, 2_000_000)
    num_sequences = num_best_fit_sequences(piece_lengths(tokens, 1024))
    assert tokens.sum() / 1024 <= num_sequences < 1.01 * tokens.sum() / 1024 + 1
