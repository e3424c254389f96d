"""The source `pydoc://<set>`: documentation installed beside this Python.

Sets: `topics`, `stdlib`, or an installed top-level package. The query: `include` and `exclude` (dotted prefixes of public names, separated
by commas), `shards` (how many).
"""

import importlib.util
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator


@dataclass(frozen=True)
class DocumentationUrl:
    """A parsed `pydoc://<set>?include=…&exclude=…&shards=…`."""

    set: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    num_shards: int

    @classmethod
    def parse(cls, url: str) -> "DocumentationUrl":
        """Parse and check the URL.

        Raises:
            ValueError: it is no `pydoc://` URL, has an unknown query field, or `shards` is no positive number.
        """
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
        unknown = sorted(set(query) - {"include", "exclude", "shards"})
        if parts.scheme != "pydoc" or not parts.netloc or parts.path.strip("/") or unknown:
            wrong = f"unknown query field {', '.join(unknown)}" if unknown else "write pydoc://<set>?include=…&exclude=…&shards=…"
            raise ValueError(f"source '{url}': {wrong}")
        shards = query.get("shards", ["1"])[-1]
        if not shards.isdecimal() or int(shards) < 1:
            raise ValueError(f"source '{url}': shards is '{shards}', not a positive number")
        include, exclude = (tuple(sorted(p for v in query.get(k, []) for p in v.split(",") if p)) for k in ("include", "exclude"))
        return cls(parts.netloc, include, exclude, int(shards))

    def selects(self, name: str) -> bool:
        """Whether an object of that name is asked for; in `stdlib` and elsewhere a prefix ends at a dot."""

        def under(prefixes: tuple[str, ...]) -> bool:
            return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)

        return (not self.include or under(self.include)) and not under(self.exclude)


def package_root(name: str) -> Path:
    """Folder or file of an installed top-level package, found without executing it.

    Raises:
        ValueError: it is not installed, or has no Python source.
    """
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is not None and spec.origin and spec.origin.endswith(".py"):
        return Path(spec.origin)
    near = get_close_matches(name, [top for top in packages_distributions() if not top.startswith("_")])
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"pydoc://{name}: no such documentation here; sets: topics, stdlib, or an installed top-level package{meant}")


def check_installed(url: str) -> str:
    """The URL, if what it names is here.

    Raises:
        ValueError: it is wrong, or there is no such documentation.
    """
    wanted = DocumentationUrl.parse(url)
    if wanted.set not in ("topics", "stdlib"):
        package_root(wanted.set)
    return url


Documentation = Annotated[str, AfterValidator(check_installed)]
"""A `pydoc://` URL of documentation that is installed."""
