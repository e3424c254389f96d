"""One job per kind of partitions; `make` runs them in graph order."""

from collections.abc import Sequence

import dagster as dg

from instpt_assets.defs.dagster_private import UnresolvedAssetJobDefinition
from instpt_assets.defs.partitions import SHARDS

SHARDS_JOB, SYNTHESIZER_JOB, SEEDS_JOB, REPORT_JOB = "shards", "synthesizer", "seeds", "report"
_BETWEEN_SHARDS = {"duplicate_documents", "evaluation_examples"}
_REPORTS = {"corpus_quality", "comparison_report"}


def jobs(assets: Sequence[dg.AssetsDefinition]) -> list[UnresolvedAssetJobDefinition]:
    """`shards` (with what is unpartitioned between them), `synthesizer` (what learns from pinned shards), `seeds` (arms), `report`."""
    keys: dict[str, list[dg.AssetKey]] = {SHARDS_JOB: [], SYNTHESIZER_JOB: [], SEEDS_JOB: [], REPORT_JOB: []}
    for definition in assets:
        for key in definition.keys:
            if definition.partitions_def == SHARDS or key.path[-1] in _BETWEEN_SHARDS:
                keys[SHARDS_JOB].append(key)
            elif definition.partitions_def is not None:
                keys[SEEDS_JOB].append(key)
            else:
                keys[REPORT_JOB if key.path[-1] in _REPORTS else SYNTHESIZER_JOB].append(key)
    descriptions = {
        SHARDS_JOB: "From raw documents to augmented, tokenized text, for any shards.",
        SYNTHESIZER_JOB: "What learns from pinned shards and tuning data alone: the synthesizer and the tokenizer.",
        SEEDS_JOB: "From mixtures to scores, for all arms.",
        REPORT_JOB: "Quality and comparison over everything.",
    }
    return [
        dg.define_asset_job(name, selection=dg.AssetSelection.assets(*chosen), description=descriptions[name])
        for name, chosen in keys.items()
        if chosen
    ]
