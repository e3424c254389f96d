"""reStructuredText as plain paragraphs: no code, no tables, no directives, no markup."""

import inspect
import re
from collections.abc import Iterator

UNDERLINE = re.compile(r"([-=~^\"*#+])\1{2,}\s*$")
"""The line below (or above) a title."""


def plain(lines: list[str], *, indented_code: bool = False) -> list[str]:
    """Paragraphs of reStructuredText without code, directives and tables; wrapped lines are joined."""
    paragraphs = [_join(block) for block in _blocks(_without_code(lines, indented_code))]
    return [paragraph for paragraph in map(inline, paragraphs) if paragraph]


_INLINE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r":[\w:+-]+:`([^`<]*[^`<\s])\s*<[^`>]*>`"), r"\1"),  # :role:`text <target>`
    (re.compile(r":[\w:+-]+:`~(?:\w+\.)*([^`]*)`"), r"\1"),  # :role:`~package.name`
    (re.compile(r":[\w:+-]+:`!?([^`]*)`"), r"\1"),
    (re.compile(r"``(.+?)``", re.DOTALL), r"\1"),
    (re.compile(r"`([^`<]*[^`<\s])\s*<[^`>]*>`_{1,2}"), r"\1"),  # `text <url>`_
    (re.compile(r"`([^`\n]+)`_{0,2}"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*([^\s*](?:[^*\n]*[^\s*])?)\*\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"), r"\1"),
    (re.compile(r"\s*\[[\w-]+\]_"), ""),  # footnote marks
    (re.compile(r"\\ "), ""),
    (re.compile(r"\\([*_`|])"), r"\1"),
    (re.compile(r"[ \t]{2,}"), " "),
)

_MARKED = re.compile(r"[`*\\]|\]_|\s{2}")


def inline(text: str) -> str:
    """Inline markup as the plain text that it shows."""
    if _MARKED.search(text):
        for pattern, shown in _INLINE:
            text = pattern.sub(shown, text)
    return text.strip()


_DIRECTIVE = re.compile(r"\s*\.\.\s+([\w:+-]+?)::\s*(.*)$")
_ADMONITIONS = {"note", "warning", "important", "tip", "caution", "attention", "hint", "danger"}
_TEMPLATE = re.compile(r"%\(\w+\)s$")  # filled in at import
_RULER = re.compile(r"\s*(?:[=-]{2,}(?:\s+[=-]{2,})+|\+[-=+]{3,}\+?)\s*$")
_BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,2}[.)]|\([a-z]\))\s+")


def _without_code(lines: list[str], indented_code: bool) -> list[str]:
    kept: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        stripped = line.strip()
        directive = _DIRECTIVE.match(line)
        if directive or stripped.startswith(".. ") or stripped == "..":
            end = _end_of_block(lines, i)
            if directive and directive[1] in _ADMONITIONS:
                body = inspect.cleandoc("\n".join(["", *lines[i + 1 : end]])).splitlines()
                title = f"{directive[1].capitalize()}: "
                kept += ["", *_without_code([title + directive[2], *body] if directive[2] else _prefixed(title, body), indented_code), ""]
            i = end
        elif stripped.startswith(">>>"):
            while i < len(lines) and lines[i].strip():
                i += 1
        elif stripped.startswith("```"):
            i = next((j + 1 for j in range(i + 1, len(lines)) if lines[j].strip().startswith("```")), len(lines))
        elif stripped.endswith("::") or (indented_code and _opens_code(lines, i)):
            text = stripped[:-1] if stripped.endswith("::") else stripped
            kept += ["" if text == ":" else line[: indentation(line)] + text, ""]
            i = _end_of_block(lines, i)
        else:
            kept += [] if UNDERLINE.match(stripped) or _TEMPLATE.match(stripped) or "::=" in line else [line]
            i += 1
    return kept


def _prefixed(title: str, body: list[str]) -> list[str]:
    start = next((i for i, line in enumerate(body) if line.strip()), len(body))
    return [title + body[start], *body[start + 1 :]] if start < len(body) else []


def _opens_code(lines: list[str], i: int) -> bool:
    """Whether line `i` is an unfinished sentence before an indented block."""
    unfinished = re.search(r"\s\S*[a-z:]$", lines[i].strip())
    return bool(unfinished) and i + 2 < len(lines) and not lines[i + 1].strip() and indentation(lines[i + 2]) > indentation(lines[i])


def _end_of_block(lines: list[str], i: int) -> int:
    """Index of the first line after `i` that is not blank and not indented deeper than line `i`."""
    base = indentation(lines[i])
    return next((j for j in range(i + 1, len(lines)) if lines[j].strip() and indentation(lines[j]) <= base), len(lines))


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            if not any(_RULER.match(row) for row in block):
                yield block
            block = []


def _join(block: list[str]) -> str:
    """One paragraph: wrapped lines joined, list items on their own lines, `term` + indented definition as `term: definition`."""
    items: list[str] = []
    bullets = False
    for index, line in enumerate(block):
        text = line.strip()
        if not items or _BULLET.match(line):
            items.append(text)
            bullets = bullets or bool(_BULLET.match(line))
        elif bullets and indentation(line) == 0 and indentation(block[index - 1]) > 0:
            items.append(text)
        elif (
            not bullets and indentation(line) > indentation(block[index - 1]) and not items[-1].endswith((":", ",")) and len(items[-1]) < 60
        ):
            items[-1] += f": {text}"
        else:
            items[-1] += text if re.search(r"\w-$", items[-1]) else f" {text}"
    return "\n".join(items)


def indentation(line: str) -> int:
    """Number of spaces that a line begins with."""
    return len(line) - len(line.lstrip())
