"""One module's source read with `ast`: its definitions with their signatures, its imports, and docstrings that it adds to others."""

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["topic", "module", "class", "function", "method"]

_SKIPPED = {"test", "tests", "conftest", "__pycache__", "site-packages", "idlelib", "lib2to3", "turtledemo", "_vendor"}


@dataclass(frozen=True)
class Found:
    """A documented object under its public name."""

    name: str
    kind: Kind
    docstring: str
    signature: str
    """`(a, b=1)` without annotations; empty where the source does not show it."""
    defaults: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass
class Module:
    """What one source file says."""

    name: str
    is_package: bool
    docstring: str = ""
    definitions: dict[str, ast.AST] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Local name -> (module, name there)."""
    stars: list[str] = field(default_factory=list)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    added: list[tuple[str, ast.Call]] = field(default_factory=list)
    """Calls that add docstrings, with the name that the result is assigned to."""


def module_files(root: Path, name: str) -> dict[str, Path]:
    """The source files of a module or package by dotted name, sorted; test folders are left out.

    Args:
        root: the folder or file of the top-level module.
        name: its name.
    """
    if root.is_file():
        return {name: root}
    files: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED.intersection(parts) and all(part.isidentifier() for part in parts):
            files[".".join([name, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return dict(sorted(files.items()))


def read_module(name: str, path: Path) -> Module | None:
    """The module, or None if its source is not of this Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return None  # Templates and sources for other Python versions lie in packages, too.
    module = Module(name, path.name == "__init__.py", ast.get_docstring(tree, clean=False) or "")
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Of overloads and platform variants the documented one counts.
            if node.name not in module.definitions or ast.get_docstring(node, clean=False):
                module.definitions[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            source = _imported_module(module, node)
            for alias in node.names:
                if alias.name == "*":
                    module.stars.append(source)
                else:
                    module.imports[alias.asname or alias.name] = (source, alias.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and isinstance(value := node.value, ast.expr):
            targets = node.targets if isinstance(node, ast.Assign) else []
            assigned = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""
            if assigned:
                module.constants[assigned] = value
            if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2].lstrip("_") in _ADDERS:
                module.added.append((assigned, value))
    return module


_ADDERS = {"add_newdoc", "add_docstr", "add_docstr_all"}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if` and `try` included."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(s for handler in node.handlers for s in handler.body), *node.orelse])
        else:
            yield node


def _imported_module(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*base, *([node.module] if node.module else [])])


def documented_in(name: str, node: ast.AST) -> Iterator[Found]:
    """The documented objects of a definition whose public name is `name`: itself and, of a class, its public methods."""
    if isinstance(node, ast.ClassDef):
        methods = [m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
        constructor = next((m for m in methods if m.name == "__init__"), None)
        if docstring := ast.get_docstring(node, clean=False):
            yield Found(name, "class", docstring, *_signature(constructor, method=True))
        for method in methods:
            if not method.name.startswith("_") and (docstring := ast.get_docstring(method, clean=False)):
                yield Found(f"{name}.{method.name}", "method", docstring, *_signature(method, method=True))
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (docstring := ast.get_docstring(node, clean=False)):
        yield Found(name, "function", docstring, *_signature(node, method=False))


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | None, *, method: bool) -> tuple[str, dict[str, str], dict[str, str]]:
    if node is None:
        return "", {}, {}
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    if decorators & {"property", "cached_property"}:
        return "", {}, {}
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    values: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(positional, values, strict=True))
    if method and pairs and "staticmethod" not in decorators:
        pairs = pairs[1:]
    parts = [_argument(argument, value) for argument, value in pairs]
    if arguments.vararg:
        parts.append(f"*{arguments.vararg.arg}")
    elif arguments.kwonlyargs:
        parts.append("*")
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    parts += [_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        parts.append(f"**{arguments.kwarg.arg}")
    defaults = {argument.arg: ast.unparse(value) for argument, value in pairs if value is not None}
    annotations = {argument.arg: ast.unparse(argument.annotation) for argument, _ in pairs if argument.annotation is not None}
    return f"({', '.join(parts)})", defaults, annotations


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return argument.arg if default is None else f"{argument.arg}={ast.unparse(default)}"
