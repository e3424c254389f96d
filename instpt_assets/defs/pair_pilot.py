"""`make pilot`: pairs for a few dozen passages with the real engine, shown, and what all of them would take.

The pilot's chains are kept as any unfinished work is, so the run that makes the shards' pairs has them already.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instpt_assets.defs.chains_worker import write_in_worker
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.output import end_without_reader
from instpt_assets.defs.pair_plan import chosen_shards, plan_shards, report
from instpt_assets.defs.pair_writer import PairWriter, chosen_pair_set
from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.store.manifest import Spec
from instpt_assets.synthesis.chain_run import Shot
from instpt_assets.synthesis.chains import Chain
from instpt_assets.synthesis.measured import PILOTS, keep_pilot
from instpt_assets.synthesis.measures import Measures
from instpt_assets.synthesis.pilot import Sample, show_chain, show_measures
from instpt_assets.synthesis.progress import ProgressLog

NUM_PASSAGES = 36


def main(arguments: Sequence[str] | None = None) -> None:
    """Write and show a pilot's pairs."""
    parser = argparse.ArgumentParser(
        description="Writes pairs for a few dozen passages, the same ones each time, and shows them with their measures and with what all passages of the "
        "corpus would take. What it writes is kept: the run that makes the shards' pairs goes on from there."
    )
    parser.add_argument("--pair-set", help="the pair set whose writer is tried; by default the recipe's only one that a model writes")
    parser.add_argument("--corpus", help="a corpus of the recipe; all by default")
    parser.add_argument("--passages", default=str(NUM_PASSAGES), help=f"so many passages, to whole chains; {NUM_PASSAGES} by default")
    options = parser.parse_args(arguments)
    try:
        project = Project.from_environment()
        if not options.passages.isascii() or not options.passages.isdigit() or int(options.passages) < 1:
            raise ValueError(f"PASSAGES: '{options.passages}' is no positive whole number")
        pilot(project, chosen_pair_set(project.recipe, options.pair_set), options.corpus, int(options.passages))
        sys.stdout.flush()
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        end_without_reader()
    except KeyboardInterrupt:
        print("interrupted: the chains that were finished are kept", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def pilot(project: Project, pair_set: str, corpus: str | None, num_passages: int, tell: Callable[[str], None] = print) -> None:
    """Write the pairs of a sample of the passages that have none in the store yet, and tell lines about them.

    Raises:
        UserError: something must be materialized before, or the writer failed.
        ValueError: the recipe has no such corpus.
    """
    if corpus is not None and corpus not in project.recipe.corpora:
        raise ValueError(
            f"CORPUS: the recipe '{project.recipe.name}' has no corpus '{corpus}' (it has: {', '.join(project.recipe.corpora)})"
        )
    writer = PairWriter.find(project, pair_set)
    keys = [key for key in chosen_shards(writer.plan, []) if corpus in (None, key.split("--")[0])]
    sample = Sample(num_passages)
    planned = plan_shards(writer, keys, candidate=lambda spec, chain: sample.offer(spec.partition, chain))
    chains = sample.chains()
    if not planned.estimates:
        reason = next(iter(planned.waiting.values()), "there is no shard")
        raise NotMaterialized(f"{reason}: make materialize SELECT='+key:\"clean_corpus\"'")
    if not chains:
        for line in report(writer, planned):
            tell(line)
        return
    specs = [planned.specs[key] for key in dict.fromkeys(shard for shard, _ in chains)]
    done = _kept(project, specs, [chain for _, chain in chains])
    missing = [(shard, chain) for shard, chain in chains if chain.chain_id not in done]
    if missing:
        statistics = write_in_worker(
            project,
            specs,
            missing,
            keep=True,
            finished=done.__setitem__,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )
        if 2 * len(missing) >= len(chains):  # or it would be measured on next to nothing
            keep_pilot(project.store, writer.writing, statistics)
    page = list[str]()

    def show(line: str) -> None:
        page.append(line)
        tell(line)

    measures, num_shown = Measures(), 0
    for _, chain in chains:
        shots = done[chain.chain_id]
        num_shown += len(shots)
        for line in show_chain(chain, shots):
            show(line)
        for passage, shot in zip(chain.passages, shots, strict=True):
            measures.add(passage.text, shot.status, shot.pairs)
    there = len(chains) - len(missing)
    show(f"Pilot of pair set '{pair_set}'; chains: {len(chains)} (there already: {there}), shards: {len(specs)}")
    show(show_measures(num_shown, measures.values()))
    if missing:
        show(_speed(statistics))
    show("\nWhat a run would do, this pilot's passages included:" if missing else "\nWhat a run would do:")
    for line in report(writer, planned):
        show(line)
    path = project.store.path(*PILOTS, writer.writing.asset, f"{corpus or 'all'}.md")
    project.store.write_text(path, "\n".join([f"# Pilot: {pair_set}, {corpus or 'all corpora'}", "", "~~~~text", *page, "~~~~", ""]))
    tell(f"\nKept as {project.store.url_of(path)}")


def _kept(project: Project, specs: Sequence[Spec], chains: Sequence[Chain]) -> dict[str, Sequence[Shot]]:
    """Results of these chains in the shards' progress logs, by chain id: of an earlier pilot, or of a run that was broken off."""
    wanted = {chain.identity for chain in chains}
    logs = (ProgressLog(project.store, spec) for spec in specs)
    kept = {identity: shots for log in logs for identity, shots in log.load() if identity in wanted}
    return {chain.chain_id: kept[chain.identity] for chain in chains if chain.identity in kept}


def _speed(statistics: Mapping[str, Any]) -> str:
    generated = statistics["generated"]
    return (
        f"Generated now: {generated['num_passages']:,} passages in {statistics['generation_seconds']:.1f} s, {statistics['passages_per_second']:,} a second, "
        f"{statistics['tokens_per_second']:,} tokens a second, {statistics['cached_share'] or 0:.0%} of the prompt tokens cached; engine start "
        f"{statistics['engine_start_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
