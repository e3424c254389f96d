"""A set of digests in little memory."""

_BYTES = 16
_EMPTY = bytes(_BYTES)


class DigestSet:
    """A set of 16-byte digests in one byte array (open addressing): 21 to 43 bytes a digest, where a `set` takes above 100."""

    def __init__(self) -> None:
        self._num = 0
        self._mask = (1 << 10) - 1
        self._table = bytearray((self._mask + 1) * _BYTES)

    def __len__(self) -> int:
        return self._num

    def add(self, digest: bytes) -> bool:
        """Add a digest, whose bits are taken for random.

        Returns:
            Whether it is new.
        """
        if digest == _EMPTY:  # as likely as any other digest; its place is taken by its neighbour
            digest = bytes(_BYTES - 1) + b"\1"
        if 4 * self._num > 3 * self._mask:
            self._grow()
        if not self._put(digest):
            return False
        self._num += 1
        return True

    def _put(self, digest: bytes) -> bool:
        place = int.from_bytes(digest[:8]) & self._mask
        while (there := self._table[place * _BYTES : (place + 1) * _BYTES]) != _EMPTY:
            if there == digest:
                return False
            place = (place + 1) & self._mask
        self._table[place * _BYTES : (place + 1) * _BYTES] = digest
        return True

    def _grow(self) -> None:
        old, self._mask = bytes(self._table), 2 * self._mask + 1
        self._table = bytearray((self._mask + 1) * _BYTES)
        for start in range(0, len(old), _BYTES):
            if (digest := old[start : start + _BYTES]) != _EMPTY:
                self._put(digest)
