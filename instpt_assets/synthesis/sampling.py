"""Samples of a stream that fit in memory however long it is, and come out the same in whatever order it is read."""

import heapq
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, TypeVar

T = TypeVar("T")


def rank(seed: int, key: str) -> int:
    """A uniform 64-bit number that stands for the key."""
    return int.from_bytes(sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")


class Sample(Generic[T]):
    """The `size` items whose keys rank lowest: a uniform sample without replacement; keys are unique."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._heap: list[tuple[int, str, T]] = []  # the highest rank first

    def offer(self, key: str, item: T) -> None:
        """Keep the item if its key ranks low enough."""
        self.offer_made(key, lambda: item)

    def offer_made(self, key: str, make: Callable[[], T]) -> None:
        """Keep what `make` gives if the key ranks low enough; else it is not called."""
        order = -rank(self._seed, key)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (order, key, make()))
        elif order > self._heap[0][0]:
            heapq.heapreplace(self._heap, (order, key, make()))

    def items(self) -> list[T]:
        """The sample, lowest rank first."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]


class DuplicateShare:
    """Share of texts that repeat an earlier one: exact up to `limit` distinct texts, beyond it measured on texts of low rank."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self._limit, self._below = limit, 1 << 64
        self._counts: dict[int, int] = {}

    def add(self, text: str) -> None:
        """Count a text."""
        number = rank(0, text)
        if number >= self._below:
            return
        self._counts[number] = self._counts.get(number, 0) + 1
        while len(self._counts) > self._limit:
            self._below //= 2
            self._counts = {known: count for known, count in self._counts.items() if known < self._below}

    @property
    def num_counted(self) -> int:
        """Texts that the share is measured on."""
        return sum(self._counts.values())

    @property
    def share(self) -> float:
        """0 if there are none."""
        return 1 - len(self._counts) / self.num_counted if self._counts else 0.0
