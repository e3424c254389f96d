"""A second look at what an artifact was read from, before it is committed under the first look's identity."""

from pathlib import Path
from typing import Any

from instpt_assets.augmentation.phrasings import PHRASINGS
from instpt_assets.corpus.shards import check_sources
from instpt_assets.store.making import Build, Inputs
from instpt_assets.store.manifest import SOURCE, Spec


def unchanged(build: Build) -> Build:
    """The build, failing (with a `SourceError`) where a source of the spec changed while it ran. Not for corpora, whose sources are single files.

    Phrasings are left out: a process loads them once, so what it writes is in the wording that it has told.
    """

    def checked(spec: Spec, inputs: Inputs, out: Path) -> dict[str, Any]:
        statistics = build(spec, inputs, out)
        sources = {i.asset.removeprefix(SOURCE): i.digest for i in spec.inputs if i.asset.startswith(SOURCE)}
        sources.pop(PHRASINGS.name, None)
        check_sources(sources)
        return statistics

    return checked
