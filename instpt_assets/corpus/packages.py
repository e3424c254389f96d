"""What an installed package documents, read from its source with `ast`: nothing of it is imported.

Public names: a definition is known by the shortest dotted name under which it can be reached without an underscore, through its own
module or through what packages import into their `__init__.py` (`pandas.core.frame.DataFrame` is `pandas.DataFrame`).
Docstrings that Python adds to objects written in C (`add_newdoc`, `add_docstr`) are read from those calls.
"""

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

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
class _Module:
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


class Package:
    """The documented objects of some top-level packages, given by module files.

    Args:
        files: dotted module name -> source file, `__init__.py` for packages.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._modules: dict[str, _Module | None] = {}

    def documented(self) -> Iterator[Found]:
        """Every documented public object once, sorted by name."""
        names = self._public_names()
        found = {item.name: item for item in self._added()}
        for owner in {item.name.rpartition(".")[0] for item in found.values() if item.kind == "method"}:
            if owner in found:
                found[owner] = replace(found[owner], kind="class")
        for name in self._files:
            if _public(name) and (module := self._module(name)) and module.docstring:
                found[name] = Found(name, "module", module.docstring, "", {}, {})
        for (module_name, local), public in names.items():
            module = self._module(module_name)
            if module is not None:
                found |= {item.name: item for item in _definitions(public, module.definitions[local])}
        for name in sorted(found):
            yield found[name]

    def _public_names(self) -> dict[tuple[str, str], str]:
        best: dict[tuple[str, str], str] = {}

        def offer(module: str, local: str, name: str) -> None:
            key = (module, local)
            if key not in best or _rank(name) < _rank(best[key]):
                best[key] = name

        for name in self._files:
            if not _public(name) or (module := self._module(name)) is None:
                continue
            for local in module.definitions:
                if not local.startswith("_"):
                    offer(name, local, f"{name}.{local}")
            if module.is_package:
                for local in self._namespace(name):
                    if (target := self._resolve(name, local)) and not local.startswith("_"):
                        offer(*target, f"{name}.{local}")
        return best

    def _namespace(self, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """The names that a module defines or imports, star imports included."""
        module = self._module(name)
        if module is None or name in seen:
            return set()
        own = set(module.definitions) | set(module.imports)
        return own.union(*(self._namespace(star, seen | {name}) for star in module.stars))

    def _resolve(self, name: str, local: str, seen: frozenset[tuple[str, str]] = frozenset()) -> tuple[str, str] | None:
        """Module and name where an object is defined, through imports; None if outside the package or not in Python."""
        module = self._module(name)
        if module is None or (name, local) in seen:
            return None
        if local in module.definitions:
            return name, local
        seen |= {(name, local)}
        if local in module.imports:
            return self._resolve(*module.imports[local], seen)
        return next((target for star in module.stars if (target := self._resolve(star, local, seen))), None)

    @cached_property
    def _top_names(self) -> dict[str, set[str]]:
        return {name: self._namespace(name) for name in self._files if "." not in name}

    def _added(self) -> Iterator[Found]:
        for name in self._files:
            # Such calls stand in private modules as well; reading those that mention them is cheap.
            path = self._files[name]
            if _public(name) or path.stem.endswith("_docs") or "_add_newdocs" in path.stem:
                module = self._module(name)
                for assigned, call in module.added if module else ():
                    found = self._added_by(name, assigned, call)
                    if found is not None:
                        yield found

    def _added_by(self, module: str, assigned: str, call: ast.Call) -> Found | None:
        arguments = [self._value(module, argument) for argument in call.args]
        function = ast.unparse(call.func).rpartition(".")[2]
        local: object = assigned
        top = module.partition(".")[0]
        if function == "add_newdoc" and len(arguments) >= 3:
            local, text = arguments[1], arguments[2]
            if isinstance(text, tuple) and len(text) == 2:
                local, text = f"{local}.{text[0]}", text[1]
            if str(local).partition(".")[0] not in self._top_names[top]:
                return None
            name = f"{top}.{local}"
        elif assigned:
            name, text = f"{module}.{assigned}", arguments[1] if len(arguments) > 1 else None
        elif function == "add_docstr_all" and len(arguments) >= 2 and module.endswith("._tensor_docs"):
            name, text = f"{top}.Tensor.{arguments[0]}", arguments[1]
        elif call.args and isinstance(call.args[0], ast.Attribute) and len(arguments) > 1:
            name, text = ".".join(part for part in ast.unparse(call.args[0]).split(".") if not part.startswith("_")), arguments[1]
        else:
            return None
        if not isinstance(text, str) or not _public(name) or not name.startswith(f"{top}."):
            return None
        *_, owner, last = name.split(".")
        method = owner[0].isupper() or (function == "add_newdoc" and "." in str(local))
        kind: Kind = "class" if last[0].isupper() else "method" if method else "function"
        return Found(name, kind, text, "", {}, {})

    def _value(self, module: str, node: ast.expr) -> Any:
        """The value of an expression made of constants, string methods and the dictionaries of shared argument texts; else None."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Tuple):
            return tuple(self._value(module, element) for element in node.elts)
        if isinstance(node, ast.Name):
            owner = self._module(module)
            if owner and node.id in owner.constants:
                return self._value(module, owner.constants[node.id])
            if owner and node.id in owner.imports:
                other, name = owner.imports[node.id]
                return self._value(other, ast.Name(name)) if self._module(other) else None
            return None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._value(module, node.left), self._value(module, node.right)
            return left + right if isinstance(left, str) and isinstance(right, str) else left if isinstance(left, str) else None
        if isinstance(node, ast.Dict):
            merged: dict[Any, Any] = {}
            for key, value in zip(node.keys, node.values, strict=True):
                evaluated = self._value(module, value)
                merged |= {self._value(module, key): evaluated} if key else evaluated if isinstance(evaluated, dict) else {}
            return merged
        if isinstance(node, ast.Subscript):
            table = self._value(module, node.value)
            return table.get(self._value(module, node.slice)) if isinstance(table, dict) else None
        if isinstance(node, ast.Call):
            return self._call(module, node)
        return None

    def _call(self, module: str, node: ast.Call) -> Any:
        values = [self._value(module, argument) for argument in node.args]
        if isinstance(node.func, ast.Name):
            if node.func.id == "parse_kwargs" and values and isinstance(values[0], str):
                return _shared_arguments(values[0])
            if node.func.id == "merge_dicts":
                return {key: text for table in values if isinstance(table, dict) for key, text in table.items()}
            return None
        if not isinstance(node.func, ast.Attribute) or not isinstance(text := self._value(module, node.func.value), str):
            return None
        if node.func.attr == "replace" and len(values) >= 2 and all(isinstance(value, str) for value in values[:2]):
            return text.replace(values[0], values[1])
        if node.func.attr == "format":
            names: dict[str, Any] = {}
            for keyword in node.keywords:
                value = self._value(module, keyword.value)
                names |= {keyword.arg: value} if keyword.arg else value if isinstance(value, dict) else {}
            try:
                return text.format(*values, **names)
            except (KeyError, IndexError, ValueError, AttributeError):
                return None
        return None

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = _read_module(name, self._files[name]) if name in self._files else None
        return self._modules[name]


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


def _read_module(name: str, path: Path) -> _Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return None  # Templates and sources for other Python versions lie in packages, too.
    module = _Module(name, path.name == "__init__.py", ast.get_docstring(tree, clean=False) or "")
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


def _imported_module(module: _Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*base, *([node.module] if node.module else [])])


def _definitions(name: str, node: ast.AST) -> Iterator[Found]:
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


def _shared_arguments(text: str) -> dict[str, str]:
    """Texts of arguments by name, from a block in which each begins a line indented by four spaces."""
    entries: list[str] = []
    for line in text.splitlines():
        if line.startswith("    ") and not line[4:5].isspace() and line.strip():
            entries.append(line.strip())
        elif entries:
            entries[-1] += f"\n{line}"
    return {entry.split(" ", 1)[0]: entry.strip() for entry in entries}


def _public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def _rank(name: str) -> tuple[int, int, str]:
    return name.count("."), len(name), name
