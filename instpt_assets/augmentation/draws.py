"""Independent draws: each comes from a generator of its own, derived by SHA-256 from the seed, the text's key and the draw's name.

So a draw is the same in every rerun, whatever else is drawn, in whatever order and in however many processes; and no two draws of a
text are related. (The published code restarts one seeded generator for every draw, which ties them together: PAPER.md section 3.)
"""

from hashlib import sha256


class Draws:
    """The draws of one text.

    Args:
        seed: of the recipe.
        key: names the text; two texts with different keys draw independently.
    """

    __slots__ = ("_state",)

    def __init__(self, seed: int, key: str) -> None:
        self._state = sha256(f"{seed}\0{key}\0".encode())

    def _bits(self, name: str) -> int:
        state = self._state.copy()
        state.update(name.encode())
        return int.from_bytes(state.digest(), "big")

    def share(self, name: str) -> float:
        """A number in [0, 1), uniform."""
        return (self._bits(name) >> 203) * 2.0**-53

    def pick(self, name: str, num: int) -> int:
        """One of 0 … num - 1, each as likely (256 bits leave no bias that could be measured)."""
        return self._bits(name) % num

    def order(self, name: str, num: int) -> list[int]:
        """A permutation of 0 … num - 1, each as likely (Fisher and Yates)."""
        bits = self._bits(name)
        for block in range(num // 32):
            bits = bits << 256 | self._bits(f"{name}\0{block}")
        result = list(range(num))
        for last in range(num - 1, 0, -1):
            bits, place = divmod(bits, last + 1)
            result[last], result[place] = result[place], result[last]
        return result
