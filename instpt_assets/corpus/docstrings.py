"""Docstrings as readable prose with their parameters: numpydoc, Google and Sphinx styles.

The rules, in order:
1. A first paragraph that is a call (`cross(input, other, *, dim=-1) -> Tensor`) is the signature, not prose.
2. Sections are told by an underlined title or by a Google heading (`Args:`). Examples, See Also and References are left out.
3. Parameter, return and exception sections become lines `name (type): description`.
4. Doctests, literal blocks, tables, directives and placeholders filled in at import (`%(name)s`) are dropped; of admonitions
   (`.. note::`) title and text stay.
5. Lines of a paragraph are joined, list items stay lines of their own.
6. Roles, double backticks, emphasis, links and escapes become the plain text that they show.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from instpt_assets.corpus.plain_text import UNDERLINE, indentation, inline, plain


@dataclass(frozen=True)
class Parameter:
    """A documented parameter."""

    name: str
    type: str
    """As documented, else as annotated; empty if neither."""
    default: str | None
    """As in the signature, else as documented; None if there is none."""
    description: str


@dataclass(frozen=True)
class Docstring:
    """What a docstring says."""

    signature: str
    """`(input, other, *, dim=-1)` if the docstring begins with one, else empty."""
    summary: str
    """First sentence."""
    prose: str
    """Paragraphs separated by blank lines."""
    parameters: tuple[Parameter, ...]
    returns: str | None
    """Description of what is returned, else its type."""


_PARAMETERS = {"parameters", "other parameters", "args", "arguments", "keyword args", "keyword arguments", "kwargs"}
_RETURNS = {"returns", "return", "yields"}
_ENTRIES = _PARAMETERS | _RETURNS | {"raises", "warns", "attributes"}
_LEFT_OUT = {"example", "examples", "example usage", "see also", "references", "methods"}
_PLAIN = {"note", "notes", "warning", "warnings", "shape", "inputs", "outputs"}
_GOOGLE = re.compile(rf"({'|'.join(sorted(_ENTRIES | _LEFT_OUT | _PLAIN, key=len, reverse=True))})\s*::?\s*$", re.IGNORECASE)
_FIELD = re.compile(r":(param|parameter|arg|keyword|kwarg|type|returns?|rtype|raises?)\b\s*([^:]*):\s*(.*)$")
_CALL = re.compile(r"[\w.]+(\(.*\))\s*(?:->\s*(.+))?$", re.DOTALL)
_NAMES = r"\*{0,2}\w[\w.]*(?:\s*,\s*\*{0,2}\w[\w.]*)*"
_NUMPY_ENTRY = re.compile(rf"({_NAMES})\s*(?::\s*(.*))?$")
_GOOGLE_ENTRY = re.compile(rf"({_NAMES})\s*(?:\(((?:[^()]|\([^()]*\))*)\))?\s*:(?!\S)\s*(.*)$")
_LITERAL = r"(?:'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]|None\b|True\b|False\b|[-+]?\d[\w.+-]*|[A-Za-z_]\w*(?:\.\w+)+)"
_DEFAULT_IN_TYPE = re.compile(rf"\b[Dd]efaults?\s*(?:is\s|to\s|[:=])?\s*({_LITERAL}|[^\s,;)]+)")
_DEFAULT_IN_TEXT = re.compile(rf"\b[Dd]efaults?\s*(?:value\s*)?(?:is|to|[:=])\s*({_LITERAL})")


def read_docstring(text: str, *, indented_code: bool = False) -> Docstring:
    """Prose and parameters of a docstring, by the rules above.

    Args:
        text: the docstring as in the source.
        indented_code: whether an indented block after a line that ends in a colon is code (rendered documentation).
    """
    lines = inspect.cleandoc(text).expandtabs(8).splitlines()
    signature, result_type, lines = _split_signature(lines)
    paragraphs: list[str] = []
    parameters: list[Parameter] = []
    returns: str | None = None
    lead = ""
    for title, body, google in _sections(lines):
        name = title.lower()
        if name in _LEFT_OUT:
            continue
        if name in _ENTRIES:
            entries = list(_entries(body, google=google, returned=name in _RETURNS))
            if entries:
                paragraphs.append("\n".join([f"{title}:", *(_render(entry) for entry in entries)]))
            if name in _PARAMETERS:
                parameters += [parameter for entry in entries for parameter in _split_names(entry)]
            elif name in _RETURNS and entries and returns is None:
                returns = entries[0].description or entries[0].type or None
            continue
        body, fields = _take_fields(body)
        prose = plain(body, indented_code=indented_code)
        lead = lead or (prose[0] if prose else "")
        paragraphs += ([inline(title) + ("" if indented_code else ":")] if title and prose else []) + prose
        if fields.parameters:
            paragraphs.append("\n".join(["Parameters:", *(_render(parameter) for parameter in fields.parameters)]))
            parameters += fields.parameters
        if fields.returns:
            returns = returns or fields.returns
            paragraphs.append(f"Returns:\n{fields.returns}")
    summary = re.split(r"(?<=[.!?])\s+(?=[A-Z])", lead.split("\n")[0], maxsplit=1)[0]
    distinct: dict[str, Parameter] = {}
    for parameter in parameters:
        distinct.setdefault(parameter.name, parameter)  # of overloads the first counts
    return Docstring(signature, summary, "\n\n".join(paragraphs), tuple(distinct.values()), returns or (inline(result_type) or None))


def _split_signature(lines: list[str]) -> tuple[str, str, list[str]]:
    end = next((i for i, line in enumerate(lines) if not line.strip()), len(lines))
    call = _CALL.match(" ".join(line.strip().rstrip("\\") for line in lines[:end]))
    if call is None or call[1].count("(") != call[1].count(")"):
        return "", "", lines
    return " ".join(call[1].split()), call[2] or "", lines[end:]


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str], bool]]:
    """Title, lines, and whether the title is a Google heading; what has no title comes with an empty one."""
    title, body, google = "", list[str](), False
    i = 0
    while i < len(lines):
        line = lines[i]
        following = next((other for other in lines[i + 1 :] if other.strip()), "")
        underlined = line.strip() and i + 1 < len(lines) and UNDERLINE.match(lines[i + 1].strip()) and not indentation(line)
        heading = _GOOGLE.match(line)
        if underlined or (heading and indentation(following)):
            yield title, body, google
            title, body, google = heading[1].capitalize() if heading and not underlined else line.strip(), [], not underlined
            i += 2 if underlined else 1
            continue
        if google and line.strip() and not indentation(line):
            yield title, body, google
            title, body, google = "", [], False
        body.append(line)
        i += 1
    yield title, body, google


def _entries(lines: list[str], *, google: bool, returned: bool) -> Iterator[Parameter]:
    """The entries of a parameter-like section; `returned` allows a bare type or sentence in place of a name."""
    lines = inspect.cleandoc("\n".join(["", *lines])).splitlines()
    group: list[str] = []
    for line in [*lines, "end"]:
        if group and (line == "end" or (line.strip() and not indentation(line))):
            yield from _entry(group, google=google, returned=returned)
            group = []
        if group or line.strip():
            group.append(line)


def _entry(group: list[str], *, google: bool, returned: bool) -> Iterator[Parameter]:
    head, rest = group[0].strip(), inspect.cleandoc("\n".join(["", *group[1:]])).splitlines()
    if not google and head.endswith(",") and rest:
        head, rest = f"{head} {rest[0].strip()}", rest[1:]
    match = (_GOOGLE_ENTRY if google else _NUMPY_ENTRY).match(head)
    if match is None:
        if returned:
            described = _one_line([head, *rest] if google or not rest else rest)
            yield Parameter("", "" if google or not rest else inline(head), None, described)
        return
    description = _one_line([match[3], *rest] if google else rest)
    kind, default = split_default(inline(match[2] or ""))
    if default is None and (found := _DEFAULT_IN_TEXT.search(description)):
        default = found[1].rstrip(".")
    yield Parameter(inline(match[1]), kind, default, description)


def _one_line(lines: list[str]) -> str:
    return " ".join(plain(lines)).replace("\n", " ")


def split_default(type_text: str) -> tuple[str, str | None]:
    """A type as documented without `optional` and `default: x`, and that default."""
    found = _DEFAULT_IN_TYPE.search(type_text)
    default = found[1].rstrip(".") if found else None
    kept = re.sub(r"[,;]?\s*\(?\boptional\b\)?", "", _DEFAULT_IN_TYPE.sub("", type_text))
    return kept.strip(" ,;."), default


def _split_names(entry: Parameter) -> list[Parameter]:
    names = [name.strip().lstrip("*") for name in entry.name.split(",")]
    return [Parameter(name, entry.type, entry.default, entry.description) for name in names if name]


def _render(entry: Parameter) -> str:
    default = f"default {entry.default}" if entry.default is not None and entry.default not in entry.description else ""
    inside = ", ".join(part for part in (entry.type, default) if part)
    head = f"{entry.name} ({inside})" if entry.name and inside else entry.name or inside
    return f"{head}: {entry.description}" if head and entry.description else head or entry.description


@dataclass
class _Fields:
    parameters: list[Parameter]
    returns: str | None


def _take_fields(lines: list[str]) -> tuple[list[str], _Fields]:
    """Sphinx fields (`:param x: …`) taken out of the lines."""
    kept: list[str] = []
    found: list[tuple[str, str, list[str]]] = []
    inside = False
    for line in lines:
        match = _FIELD.match(line.strip())
        if match:
            found.append((match[1], match[2].strip(), [match[3]]))
            inside = True
        elif inside and (indentation(line) or not line.strip()):
            found[-1][2].append(line)
        else:
            inside = False
            kept.append(line)
    if not found:
        return lines, _Fields([], None)
    types = {name: " ".join(plain(text)) for kind, name, text in found if kind == "type"}
    fields = _Fields([], None)
    for kind, name, text in found:
        description = _one_line([text[0], *inspect.cleandoc("\n".join(["", *text[1:]])).splitlines()])
        if kind in {"param", "parameter", "arg", "keyword", "kwarg"} and name:
            *type_words, last = name.split()
            stated, default = split_default(types.get(last, " ".join(type_words)))
            if default is None and (match := _DEFAULT_IN_TEXT.search(description)):
                default = match[1].rstrip(".")
            fields.parameters.append(Parameter(last.lstrip("*\\"), stated, default, description))
        elif kind in {"return", "returns"} and description:
            fields.returns = description
    return kept, fields
