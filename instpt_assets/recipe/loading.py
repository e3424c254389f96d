"""Recipes and executions from YAML: bundled by name or a user's file; errors in one message that names the field."""

import json
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from instpt_assets.errors import UserError
from instpt_assets.recipe.base import Part
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.recipe.training import MODEL_TAGS

_HERE = Path(__file__).parent
_WHOLE = {
    ("corpora",),
    ("pair_sets",),
    ("arms",),
    ("tuning", "sources"),
    ("decontamination", "sources"),
}  # mappings by the user's own names
Model = TypeVar("Model", bound=Part)


class ConfigurationError(UserError):
    """A recipe or execution that cannot be used; the message says what to change, for people."""


def load_recipe(name_or_path: str | None = None) -> Recipe:
    """The recipe that `INSTPT_RECIPE` (or the argument) names: a bundled one, or a YAML file, which may extend another (`extends: demo`).

    What a file says goes over what it extends: settings field by field, at any depth (`synthesizer: {optimization: {learning_rate: 0.001}}`
    changes nothing else); lists, and the mappings by the user's own names (corpora, pair sets, arms, sources of the tuning), as a whole.
    A model given by name takes the place of a shape, and the other way round. `null` removes a setting that may be missing.
    Relative paths, here and in the recipe, follow the current folder, not the file's.

    Raises:
        ConfigurationError: it does not exist or is not valid; the message names every wrong field.
    """
    return _load(Recipe, name_or_path or os.environ.get("INSTPT_RECIPE") or "demo", _HERE / "recipes", "recipe")


def load_execution(name_or_path: str | None = None) -> Execution:
    """The execution profile that `INSTPT_EXECUTION` (or the argument) names; by default that of the installed builds, `cpu` or `gpu`.

    Raises:
        ConfigurationError: it does not exist or is not valid; the message names every wrong field.
    """
    return _load(Execution, name_or_path or os.environ.get("INSTPT_EXECUTION") or _default_execution(), _HERE / "executions", "execution")


def _default_execution() -> str:
    """The profile of the builds that the set-up installed; without them, of the machine."""
    try:
        return "cpu" if version("vllm").endswith("+cpu") else "gpu"
    except PackageNotFoundError:
        return "gpu" if Path("/dev/nvidia0").exists() else "cpu"


def bundled(kind: str = "recipes") -> list[str]:
    """Names of the bundled `recipes` or `executions`."""
    return sorted(path.stem for path in (_HERE / kind).glob("*.yaml"))


def _read(path: Path, folder: Path, what: str, extended_by: tuple[Path, ...] = ()) -> Any:
    """The YAML file over the one that its `extends` names."""
    if path.resolve() in extended_by:
        chain = " -> ".join(str(file) for file in (*extended_by, path.resolve()))
        raise ConfigurationError(f"{what} {path}: extends: the files extend each other in a circle ({chain}): name another")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if content is None:
        raise ConfigurationError(f"{what} {path}: the file is empty")
    if not isinstance(content, dict) or "extends" not in content:
        return content
    if what == "recipe" and "name" not in content:
        raise ConfigurationError(
            f"{what} {path}: name: a recipe that extends another needs a name of its own (it names pointers and instance)"
        )
    base = _find(str(content.pop("extends")), folder, what)
    extended = _read(base, folder, what, (*extended_by, path.resolve()))
    if not isinstance(extended, dict):
        raise ConfigurationError(f"{what} {path}: extends: {base} holds no fields")
    return _over(extended, content)


def _over(base: dict[str, Any], content: dict[str, Any], where: tuple[str, ...] = ()) -> dict[str, Any]:
    merged = dict(base)
    for name, value in content.items():
        field = (*where, name)
        both = isinstance(value, dict) and isinstance(base.get(name), dict) and field not in _WHOLE
        merged[name] = _over(base[name], value, field) if both else value
    return merged


def _find(name_or_path: str, folder: Path, what: str) -> Path:
    for path in (folder / f"{name_or_path}.yaml", Path(name_or_path)):
        if path.is_file():
            return path
    raise ConfigurationError(f"{what} '{name_or_path}' is neither a file nor one of the bundled ones: {', '.join(bundled(folder.name))}")


def _load(model: type[Model], name_or_path: str, folder: Path, what: str) -> Model:
    path = _find(name_or_path, folder, what)
    try:
        # Through JSON, so that strict validation accepts lists for tuples and nothing else of YAML's types.
        return model.model_validate_json(json.dumps(_read(path, folder, what)))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise ConfigurationError(f"{what} {path}: not readable as YAML: {error}") from error
    except ValidationError as error:
        lines = [f"{what} {path} is not valid:"]
        items = error.errors(include_url=False)
        for item in items:
            if item["type"] == "too_short" and any(other["loc"][:-1][: len(item["loc"])] == item["loc"] for other in items):
                continue  # pydantic misses the wrong item, which is named by itself
            where = ".".join(str(part) for part in item["loc"] if part not in (*MODEL_TAGS, "[key]"))
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "extra_forbidden":
                message = "unknown field"
            # Problems between sections name their fields themselves.
            lines += [f"  {where}: {part}" if where else f"  {part}" for part in message.split("\n")]
        raise ConfigurationError("\n".join(lines)) from None
