"""`make plan`: what a run that writes pairs would do: what is there, what is missing, in how much time and for how much money."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.output import end_without_reader
from instpt_assets.defs.pair_writer import PairWriter, chosen_pair_sets
from instpt_assets.defs.plan import Plan
from instpt_assets.defs.progress import duration
from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.recipe.execution import Execution
from instpt_assets.store.manifest import Spec
from instpt_assets.synthesis.chains import Chain
from instpt_assets.synthesis.estimate import Estimate, Estimator, longest
from instpt_assets.synthesis.measured import Lengths, Speed, measured_lengths, measured_speed

Candidate = Callable[[Spec, Chain], None]
_STALE = ("raw_corpus", "clean_corpus")
_MAX_NAMED = 10
"""So many shards are named in a line."""


@dataclass
class PlannedShards:
    """A pair set's shards, as far as they can be planned."""

    specs: Mapping[str, Spec]
    """What would be made, by shard."""
    estimates: Mapping[str, Estimate]
    """Of each of these shards."""
    waiting: Mapping[str, str]
    """Shards that lack something before, and what."""
    stale: Sequence[str]
    """Shards whose corpus would be made anew first, and may then be another."""

    @property
    def sum(self) -> Estimate:
        """All of them together."""
        return sum(self.estimates.values(), Estimate())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the plan of one pair set, or of all that a model writes."""
    parser = argparse.ArgumentParser(
        description="Says what writing pairs would do, without an engine and without changing anything: passages and chains that are there, reused or "
        "missing, tokens, time and cost at the last speed that was measured with this writer on this execution profile."
    )
    parser.add_argument("--pair-set", help="a pair set of the recipe; all whose pairs a model writes by default")
    parser.add_argument("--shards", default="", help="shard keys, separated by commas or spaces; all of the recipe's corpora by default")
    options = parser.parse_args(arguments)
    try:
        project = Project.from_environment()
        names = chosen_pair_sets(project.recipe, options.pair_set)
        keys = chosen_shards(project.plan(), options.shards.replace(",", " ").split())
        for number, name in enumerate(names):
            print("\n" * bool(number) + f"Pair set '{name}', recipe '{project.recipe.name}', store {project.store.url}")
            for line in plan_lines(project, name, keys):
                print(line)
        sys.stdout.flush()
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:
        end_without_reader()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def plan_lines(project: Project, pair_set: str, keys: Sequence[str]) -> list[str]:
    """The plan of a pair set for these shards, as lines for people; where its writer is missing, one that says so."""
    try:
        writer = PairWriter.find(project, pair_set)
    except (UserError, ValueError) as error:
        return [f"Nothing can be planned yet: {error}"]
    return list(report(writer, plan_shards(writer, keys)))


def chosen_shards(plan: Plan, wanted: Sequence[str]) -> list[str]:
    """The shards that a plan is about: these, or all, those that a run would register first included.

    Raises:
        ValueError: one does not exist.
    """
    registered = plan.registered_shards
    known = [*registered, *(key for key in plan.available_shards() if key not in set(registered))]
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ValueError(f"SHARDS: no such shard: {', '.join(unknown)} (there are: {', '.join(known) or 'none'})")
    return [key for key in known if not wanted or key in set(wanted)]


def plan_shards(writer: PairWriter, keys: Iterable[str], candidate: Candidate = lambda spec, chain: None) -> PlannedShards:
    """Look at each shard.

    Args:
        writer: of the pair set.
        keys: the shards.
        candidate: told of each chain that a pilot may choose (see `Estimator.shard`).
    """
    project, plan = writer.project, writer.plan
    estimator = Estimator(project.store, writer.pair_set, writer.format)
    specs, estimates, waiting, stale = dict[str, Spec](), dict[str, Estimate](), dict[str, str](), list[str]()
    for key in keys:
        try:
            specs[key] = spec = plan.spec(writer.writing.asset, key)
        except NotMaterialized as error:
            waiting[key] = str(error)
            continue
        if not all(plan.is_current(asset, key) for asset in _STALE):
            stale.append(key)
        if sys.stderr.isatty():
            print(f"\r{key} …\x1b[K", end="", file=sys.stderr, flush=True)
        estimates[key] = estimator.shard(spec, candidate=lambda chain, spec=spec: candidate(spec, chain))  # type: ignore[misc]
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return PlannedShards(specs, estimates, waiting, stale)


def report(writer: PairWriter, planned: PlannedShards) -> Iterator[str]:
    """The plan as lines for people: a table, what its figures rest on, and what must come before."""
    store, execution = writer.project.store, writer.project.execution
    lengths, speed = measured_lengths(store, writer.writing) or longest(writer.pair_set), measured_speed(store, writer.writing)
    yield from _table(planned, lengths, speed, execution)
    total = planned.sum
    if total.num_missing_chains:
        yield ""
        yield _basis(lengths)
        yield from _cost(total, lengths, speed, execution)
    elif planned.estimates:
        yield "Nothing is missing."
    if planned.stale:
        yield f"Out of date, counted as it is now; a run makes it anew first: clean_corpus of {_named(planned.stale)}"
    if writer.pair_set.tuned_here and not writer.plan.is_current("instruction_synthesizer"):
        yield "The synthesizer is out of date: a run of the whole recipe tunes it anew first, and then every chain is missing."
    yield from _waiting(planned.waiting)


def _table(planned: PlannedShards, lengths: Lengths, speed: Speed | None, execution: Execution) -> Iterator[str]:
    missing = {key: estimate for key, estimate in planned.estimates.items() if estimate.num_missing_chains}
    there = [estimate for key, estimate in planned.estimates.items() if key not in missing]
    rows = list(missing.items())
    if there:
        rows.append((f"{len(there)} complete shard{'s' * (len(there) > 1)}", sum(there, Estimate())))
    if len(rows) > 1:
        rows.append(("all", planned.sum))
    head = ["", "passages", "missing", "chains", "reused", "missing", "prompt tokens", "completion tokens", "time", "cost"]
    cells = [
        [
            name,
            *(f"{n:,}" for n in (e.num_passages, e.num_missing_passages, e.num_chains, e.num_reused_chains, e.num_missing_chains)),
            *(f"{n:,.0f}" for n in (e.prompt_tokens(lengths), e.completion_tokens(lengths))),
            (duration(e.seconds(lengths, speed)) if speed else "?") if e.num_missing_chains else "",
            _money(e.seconds(lengths, speed), execution) if speed and e.num_missing_chains and execution.cost_per_hour is not None else "",
        ]
        for name, e in rows
    ]
    if execution.cost_per_hour is None:
        head, cells = head[:-1], [row[:-1] for row in cells]
    widths = [max(len(row[column]) for row in [head, *cells]) for column in range(len(head))]
    for row in [head, *cells] if cells else []:
        yield "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]).rstrip()


def _basis(lengths: Lengths) -> str:
    if lengths.measured_on is None:
        return (
            f"No completion of this writer was measured yet: {lengths.completion_tokens:.0f} tokens each (max_new_tokens) are the most that "
            "there can be. A pilot tells: make pilot"
        )
    return (
        f"Completions are taken for {lengths.completion_tokens:.0f} tokens, {lengths.valid_share:.0%} of them with a valid pair, as on "
        f"{lengths.measured_on}."
    )


def _cost(total: Estimate, lengths: Lengths, speed: Speed | None, execution: Execution) -> Iterator[str]:
    """Time and money of everything that is missing, and how many runs the execution profile's limits make of it."""
    settings = execution.synthesis
    tokens = total.completion_tokens(lengths)
    runs = [math.ceil(tokens / settings.max_generated_tokens)] if settings.max_generated_tokens else []
    limits = [f"max_generated_tokens {settings.max_generated_tokens:,}"] if settings.max_generated_tokens else []
    if speed is None:
        yield "No speed of this writer was measured yet on this execution profile. A pilot tells: make pilot"
    else:
        seconds = total.seconds(lengths, speed)
        start = speed.engine_start_seconds
        at_most = "At most about " if lengths.measured_on is None else "About "
        cost = "" if execution.cost_per_hour is None else f", for {_money(seconds + start, execution)}"
        yield (
            f"{at_most}{duration(seconds + start)}{cost}: at {speed.tokens_per_second:,.0f} tokens a second (prompt tokens that the cache lacks, "
            f"and generated ones), as on {speed.measured_on}, with {duration(start)} for the engine's start."
        )
        if speed.is_pilot:
            yield "A pilot is too small to fill the engine: a long run is faster."
        if settings.max_minutes is not None:
            limits.append(f"max_minutes {settings.max_minutes:g}")
            usable = 60 * settings.max_minutes - start
            if usable <= 0:
                yield f"synthesis.max_minutes {settings.max_minutes:g} of the execution profile ends before the engine has started: raise it."
                return
            runs.append(math.ceil(seconds / usable))
    if runs:
        yield f"With the execution profile's limits (synthesis.{', synthesis.'.join(limits)}) that is {max(runs):,} run{'s' * (max(runs) > 1)}."


def _waiting(waiting: Mapping[str, str]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for key, reason in waiting.items():
        reasons.setdefault(reason.replace(f" {key}", " …").replace(f"partition {key}", "…"), []).append(key)
    for reason, keys in reasons.items():
        yield f"Not counted: {_named(keys)}: {reason}"
    if waiting:
        yield "What must come before is made with: make materialize SELECT='+key:\"clean_corpus\"'"


def _named(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_MAX_NAMED]) + (f" and {len(keys) - _MAX_NAMED} more" if keys[_MAX_NAMED:] else "")


def _money(seconds: float, execution: Execution) -> str:
    assert execution.cost_per_hour is not None
    return f"{seconds / 3600 * execution.cost_per_hour:,.2f}"


if __name__ == "__main__":
    main()
