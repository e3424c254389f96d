"""What an installed package documents, read from its source with `ast`: nothing of it is imported.

Public names: a definition is known by the shortest dotted name under which it can be reached without an underscore, through its own
module or through what packages import into their `__init__.py` (`pandas.core.frame.DataFrame` is `pandas.DataFrame`).
Docstrings that Python adds to objects written in C (`add_newdoc`, `add_docstr`) are read from those calls.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from instpt_assets.corpus.modules import Found, Kind, Module, documented_in, read_module


class Package:
    """The documented objects of some top-level packages, given by module files.

    Args:
        files: dotted module name -> source file, `__init__.py` for packages.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._modules: dict[str, Module | None] = {}

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
                found |= {item.name: item for item in documented_in(public, module.definitions[local])}
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

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            self._modules[name] = read_module(name, self._files[name]) if name in self._files else None
        return self._modules[name]


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
