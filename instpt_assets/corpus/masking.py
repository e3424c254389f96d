"""Masking e-mail and IP addresses in texts.

- **E-mail**: at most 64 letters, digits and `._%+'-` (the first a letter, digit or `_`), `@`, and a host name with a dot whose last part is
  two letters or more. Not: addresses in words (`name at host`), with blanks, or for several people in braces.
- **IPv4**: four numbers with dots that stand alone, neither part of a longer number with dots nor of a word.
- **IPv6**: what Python's `ipaddress` reads as one in the block that is given out (2000::/3).

Of IP addresses only public ones are masked (`ipaddress.is_global`): private, loopback and documentation addresses (`192.168.0.1`, `::1`)
identify nobody, and texts about networks need them. What looks like IPv4 but is called something else is no address: an enzyme's number
(`EC 3.4.21.4`), a version, section, table or figure, a heading's number at the beginning of a line, and figures of a table that have run
together, where a sign of measures stands beside them (`74.3 ± 85.80.10.92`). A version of four parts whose name alone stands before it
(`G*Power 3.1.9.2`) looks like nothing but an address: leave `ipv4` off for papers.

A placeholder is never masked again, and masking twice changes nothing.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from instpt_assets.recipe.cleaning import Masks

Kind = Literal["email", "ipv4", "ipv6"]

_LOCAL = re.compile(r"[\w.%+'-]+\Z")
_HOST = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,}")
_MAX_LOCAL = 64
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV4_HINT = re.compile(r"\.\d{1,3}\.\d{1,3}\.")  # begins with a literal, which is found many times faster
_NUMBERED = re.compile(
    r"(?:\b(?:EC|ver|vers|version|release|software|sections?|chapter|clause|table|fig|figures?|no)\b[.:]?|\bE\.C\.|§)[ (]{0,2}\Z",
    re.IGNORECASE,
)
_SIGN = r"[+%<>=~\u00b1\u00b7\u00d7\u2013\u2212\u2264\u2265-]"  # of measures
_MEASURED = re.compile(rf"{_SIGN}[ \u2009]?\Z")
_MEASURED_BEHIND = re.compile(rf"[ \u2009]?{_SIGN}")
_HEADING = re.compile(r"[.)]?[ \t]+[^\W\d]")
_IPV6_HINT = re.compile(r":[0-9A-Fa-f]{0,4}:")
_IPV6_RUN = re.compile(r"[0-9A-Fa-f:.]+")
_IPV6_SHARE = ipaddress.IPv6Network("2000::/3")
_MAX_IPV6 = 45


class Mask(NamedTuple):
    """A masked place of a text."""

    kind: Kind
    start: int
    """In characters of the text before masking."""
    length: int

    @property
    def end(self) -> int:
        """Behind the last character."""
        return self.start + self.length


class Masker:
    """Finds and replaces the addresses of the kinds that have a placeholder.

    Attributes:
        kinds: the placeholders by kind.

    Raises:
        ValueError: a placeholder holds an address that would be masked itself.
    """

    def __init__(self, masks: Masks) -> None:
        placeholders: dict[Kind, str | None] = {"email": masks.email, "ipv4": masks.ipv4, "ipv6": masks.ipv6}
        self.kinds = {kind: placeholder for kind, placeholder in placeholders.items() if placeholder is not None}
        self._own = frozenset(self.kinds.values())
        for kind, placeholder in self.kinds.items():
            if self._find(placeholder):
                raise ValueError(f"cleaning.mask.{kind}: '{placeholder}' holds an address that is masked itself; choose a word in brackets")

    def mask(self, text: str) -> tuple[str, list[Mask]]:
        """The text with placeholders, and the places that were masked, in order."""
        found = self._find(text)
        masked = self._replaced(text, found)
        # What stands beside a placeholder may be an address with it, or for lack of what it took the place of; such pieces go together.
        while found and (more := self._find(masked)):
            found = _joined([*found, *(self._before(mask, found) for mask in more)])
            masked = self._replaced(text, found)
        return masked, found

    def _find(self, text: str) -> list[Mask]:
        masks = [Mask(kind, start, end - start) for kind in self.kinds for start, end in _FINDERS[kind](text)]
        return [mask for mask in _joined(masks) if text[mask.start : mask.end] not in self._own]

    def _replaced(self, text: str, masks: Sequence[Mask]) -> str:
        pieces, end = list[str](), 0
        for mask in masks:
            pieces += [text[end : mask.start], self.kinds[mask.kind]]
            end = mask.end
        return "".join([*pieces, text[end:]])

    def _before(self, mask: Mask, earlier: Sequence[Mask]) -> Mask:
        """A place of the masked text in the text before masking, with all of what the placeholders that it touches stand for."""
        start, end, moved = mask.start, mask.end, 0
        for known in earlier:
            begin = known.start + moved
            moved += len(self.kinds[known.kind]) - known.length
            stop = known.end + moved
            if mask.start >= begin:
                start = known.start if mask.start < stop else mask.start - moved
            if mask.end > begin:
                end = known.end if mask.end <= stop else mask.end - moved
        return Mask(mask.kind, start, end - start)


def _joined(masks: Iterable[Mask]) -> list[Mask]:
    """The places in order; those that overlap as one, of the kind of the first (of several the longest)."""
    joined = list[Mask]()
    for mask in sorted(masks, key=lambda mask: (mask.start, -mask.length)):
        if joined and mask.start < joined[-1].end:
            joined[-1] = joined[-1]._replace(length=max(joined[-1].end, mask.end) - joined[-1].start)
        else:
            joined.append(mask)
    return joined


def _emails(text: str) -> Iterator[tuple[int, int]]:
    end = 0
    place = text.find("@")
    while place >= 0:
        local = _LOCAL.search(text, max(end, place - _MAX_LOCAL - 1), place)
        host = _HOST.match(text, place + 1) if local else None
        if local and host:
            start = next((i for i in range(local.start(), place) if text[i].isalnum() or text[i] == "_"), place)
            if 0 < place - start <= _MAX_LOCAL:
                end = host.end()
                yield start, end
        place = text.find("@", place + 1)


def _ipv4(text: str) -> Iterator[tuple[int, int]]:
    if _IPV4_HINT.search(text) is None:
        return
    for match in _IPV4.finditer(text):
        start, end = match.span()
        line = text[text.rfind("\n", 0, start) + 1 : start]
        is_numbered = _NUMBERED.search(line[-14:]) or (not line.strip("# \t") and _HEADING.match(text, end))
        is_measured = _MEASURED.search(line[-2:]) or _MEASURED_BEHIND.match(text, end)
        if not is_numbered and not is_measured and _is_public(match[0]):
            yield start, end


def _ipv6(text: str) -> Iterator[tuple[int, int]]:
    end = 0
    for hint in _IPV6_HINT.finditer(text):
        if hint.start() < end:
            continue
        start = hint.start()
        while start > max(end, hint.start() - _MAX_IPV6) and text[start - 1] in "0123456789abcdefABCDEF:":
            start -= 1
        run = _IPV6_RUN.match(text, start)
        assert run is not None, "a hint is of these characters"
        end = run.end()
        address = run[0].rstrip(".")
        if not address.endswith("::"):
            address = address.rstrip(":.")
        stop = start + len(address)
        alone = not (start and (text[start - 1].isalnum() or text[start - 1] == "_")) and not text[stop : stop + 1].isalnum()
        if alone and len(address) <= _MAX_IPV6 and _is_public(address):
            yield start, stop


_FINDERS: dict[Kind, Callable[[str], Iterator[tuple[int, int]]]] = {"email": _emails, "ipv4": _ipv4, "ipv6": _ipv6}


def _is_public(address: str) -> bool:
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return False
    return read.is_global and (read.version == 4 or read in _IPV6_SHARE)
