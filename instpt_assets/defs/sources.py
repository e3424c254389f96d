"""A second look at what an artifact was read from, before it is committed under the first look's identity."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from instpt_assets.corpus.shards import check_sources
from instpt_assets.store.making import Build, Inputs
from instpt_assets.store.manifest import SOURCE, Spec


def unchanged(build: Build, urls: Iterable[str]) -> Build:
    """The build, failing (with a `SourceError`) where one of these sources, inputs of its spec, changed while it ran."""
    wanted = {f"{SOURCE}{url}": url for url in urls}

    def checked(spec: Spec, inputs: Inputs, out: Path) -> dict[str, Any]:
        statistics = build(spec, inputs, out)
        check_sources({wanted[item.asset]: item.digest for item in spec.inputs if item.asset in wanted})
        return statistics

    return checked
