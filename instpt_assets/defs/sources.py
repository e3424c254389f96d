"""A second look at what an artifact was read from, before it is committed under the first look's identity."""

from pathlib import Path
from typing import Any

from instpt_assets.corpus.shards import check_sources
from instpt_assets.store.making import Build, Inputs
from instpt_assets.store.manifest import SOURCE, Spec


def unchanged(build: Build) -> Build:
    """The build, failing (with a `SourceError`) where a source of the spec changed while it ran. Not for corpora, whose sources are single files."""

    def checked(spec: Spec, inputs: Inputs, out: Path) -> dict[str, Any]:
        statistics = build(spec, inputs, out)
        check_sources({i.asset.removeprefix(SOURCE): i.digest for i in spec.inputs if i.asset.startswith(SOURCE)})
        return statistics

    return checked
