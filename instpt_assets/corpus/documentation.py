"""Documentation of what is installed beside this Python as documents: the source `pydoc://<set>`.

Sets: `topics` (the language reference that `help()` shows), `stdlib` (the standard library's docstrings), or the name of an installed
top-level package. Sources are read, never imported. `recipe.documentation` has the form of the URL; `shards` of its query is not used here.
"""

import ast
import hashlib
import importlib.util
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from instpt_assets.corpus.docstrings import Docstring, Parameter, read_docstring, split_default
from instpt_assets.corpus.modules import Found, Kind, module_files
from instpt_assets.corpus.packages import Package
from instpt_assets.recipe.documentation import DocumentationUrl, package_root

__all__ = ["DocumentedObject", "Parameter", "documentation_digest", "read_documentation"]

MIN_PROSE = 100
"""Characters of prose from which an object is a document."""


@dataclass(frozen=True)
class DocumentedObject:
    """One documented module, class, function, method or topic."""

    name: str
    """Dotted public name, e.g. `numpy.linalg.solve`."""
    kind: Kind
    summary: str
    """First sentence of the docstring."""
    prose: str
    """The docstring as readable prose (rules: `docstrings`)."""
    parameters: tuple[Parameter, ...]
    returns: str | None
    signature: str = ""
    """`(a, b=1)` where known, else empty."""

    @property
    def text(self) -> str:
        """Title and prose: a document of `raw_corpus`."""
        title = self.name.replace("_", " ").replace("-", " ").capitalize() if self.kind == "topic" else self.name
        return f"{title}{self.signature}\n\n{self.prose}"


def read_documentation(url: str) -> Iterator[DocumentedObject]:
    """The documented objects of a set, sorted by name, each distinct prose once.

    Equal docstrings are told over the whole set before `include` and `exclude` apply, so that what one URL includes and another
    excludes never meets.

    Args:
        url: `pydoc://<set>?include=a.b,c&exclude=d`.

    Raises:
        ValueError: the URL is wrong, or the set is not installed; the message says what is.
    """
    wanted = DocumentationUrl.parse(url)
    for document in _documents(wanted.set):
        if wanted.selects(document.name):
            yield document


@lru_cache(maxsize=2)  # several shards of one set are read in a row
def _documents(set_name: str) -> tuple[DocumentedObject, ...]:
    found: dict[str, DocumentedObject] = {}
    for document in _topics() if set_name == "topics" else _package(set_name):
        if len(document.prose) >= MIN_PROSE:
            found.setdefault(document.prose, document)
    return tuple(found.values())


def documentation_digest(url: str) -> str:
    """64 hexadecimal digits over the URL (without `shards`) and the version of what it documents; reads no documentation.

    Raises:
        ValueError: as `read_documentation`.
    """
    wanted = DocumentationUrl.parse(url)
    made_from = f"python {platform.python_version()}" if wanted.set in ("topics", "stdlib") else _version(wanted.set)
    return hashlib.sha256(f"{wanted.set}\n{wanted.include}\n{wanted.exclude}\n{made_from}".encode()).hexdigest()


def _topics() -> Iterator[DocumentedObject]:
    spec = importlib.util.find_spec("pydoc_data")
    folder = Path((spec.submodule_search_locations or [""])[0] if spec else "")
    tree = ast.parse((folder / "topics.py").read_bytes())
    topics: dict[str, str] = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    for name in sorted(topics):
        read = read_docstring(topics[name], indented_code=True)
        yield DocumentedObject(name, "topic", read.summary, read.prose, (), None)


def _package(name: str) -> Iterator[DocumentedObject]:
    if name == "stdlib":
        folder = Path(sysconfig.get_paths()["stdlib"])
        tops = sorted(top for top in sys.stdlib_module_names if not top.startswith("_") and top not in _NO_LIBRARY)
        roots = {top: folder / top if (folder / top).is_dir() else folder / f"{top}.py" for top in tops}
    else:
        roots = {name: package_root(name)}
    files: dict[str, Path] = {}
    for top, root in roots.items():
        if root.exists():
            files |= module_files(root, top)
    for found in Package(files).documented():
        yield _document(found, read_docstring(found.docstring))


_NO_LIBRARY = {"test", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "this", "antigravity"}


def _document(found: Found, read: Docstring) -> DocumentedObject:
    signature = found.signature or read.signature
    defaults = found.defaults or _stated_defaults(read.signature)
    parameters = tuple(
        Parameter(
            parameter.name,
            parameter.type or split_default(found.annotations.get(parameter.name, ""))[0],
            _default(defaults.get(parameter.name), parameter.default),
            parameter.description,
        )
        for parameter in read.parameters
    )
    return DocumentedObject(found.name, found.kind, read.summary, read.prose, parameters, read.returns, signature)


def _default(from_signature: str | None, stated: str | None) -> str | None:
    """The signature's default, but the documented one where that is a sentinel."""
    return stated if from_signature is None or _SENTINEL.search(from_signature) else from_signature


_SENTINEL = re.compile(r"no_default|no_value|novalue|sentinel|unset|missing|deprecated", re.IGNORECASE)


def _stated_defaults(signature: str) -> dict[str, str]:
    """Defaults of a signature that stands in a docstring; none where it is not Python."""
    try:
        tree = ast.parse(f"def f{signature}: ...") if signature else ast.Module([], [])
    except SyntaxError:
        return {}
    if not tree.body or not isinstance(node := tree.body[0], ast.FunctionDef):
        return {}
    positional = [*node.args.posonlyargs, *node.args.args]
    pairs = [
        *zip(reversed(positional), reversed(node.args.defaults), strict=False),
        *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
    ]
    return {argument.arg: ast.unparse(value) for argument, value in pairs if value is not None}


@lru_cache
def _version(name: str) -> str:
    """Distribution and version of an installed package; of one without a distribution a digest of its sources."""
    root = package_root(name)
    with suppress(PackageNotFoundError):
        return f"{name} {version(name)}"
    if distributions := sorted(set(packages_distributions().get(name, ()))):
        return " ".join(f"{distribution} {version(distribution)}" for distribution in distributions)
    sources = b"".join(path.read_bytes() for path in module_files(root, name).values())
    return f"{name} {hashlib.sha256(sources).hexdigest()}"
