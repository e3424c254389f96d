"""Write the pairs of several shards with one engine start: plan, reuse what is finished, generate the rest, commit shard by shard.

The engine is kept full across shards: the next shard's chains enter while the last ones of the shard before it still run, and each shard is
committed when its own last chain is done. A shard that fails does not stop the others. Memory holds the passages of the shards in flight,
two as a rule.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from instpt_assets.errors import UserError, told
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.store.manifest import Spec
from instpt_assets.store.preview import write_preview
from instpt_assets.store.store import Store, resolve
from instpt_assets.synthesis.accounting import Accounting
from instpt_assets.synthesis.chains import Chain, Passage, cut_documents, generation_context, plan_chains, read_documents
from instpt_assets.synthesis.engine import start_vllm
from instpt_assets.synthesis.progress import SYNTHESIZER, ProgressLog, load_committed
from instpt_assets.synthesis.prompt import PromptFormat
from instpt_assets.synthesis.scheduler import ChainRun, Engine, EngineLostError, Scheduler, Shot, chains_in_flight

Progress = Callable[[Mapping[str, Any]], None]
Committed = Callable[[Spec, bool], None]
StartEngine = Callable[[Path, PairSet, Execution, int], Engine]

CLEAN_CORPUS = "clean_corpus"
_LOG = logging.getLogger(__name__)
_REPORT_SECONDS = 5.0
_ROW_GROUP = 1024
_PAIR = pa.struct([("instruction", pa.string()), ("response", pa.string()), ("options", pa.list_(pa.string())), ("reasoning", pa.string())])
SCHEMA = pa.schema(
    [
        ("passage_id", pa.string()),
        ("document_id", pa.string()),
        ("chain_id", pa.string()),
        ("shot", pa.int32()),
        ("text", pa.string()),
        ("status", pa.string()),
        ("pairs", pa.list_(_PAIR)),
        ("num_rejected_pairs", pa.int32()),
        ("completion", pa.string()),
        ("num_prompt_tokens", pa.int32()),
        ("num_completion_tokens", pa.int32()),
    ]
)
"""Columns of `instruction_pairs`. `chain_id` is the planned chain and, behind a dash, how often it restarted; rows of one `chain_id` with
status `ok` belong into one augmented text, by `shot`. Passages that were not selected have neither chain nor shot nor completion."""


class SynthesisError(UserError):
    """Some shards have no pairs; the message names them and says why."""


def write_pairs(
    store: Store,
    jobs: Sequence[Spec],
    execution: Execution,
    *,
    progress: Progress,
    committed: Committed,
    start_engine: StartEngine = start_vllm,
) -> None:
    """Commit the `instruction_pairs` of every job that the store lacks.

    Args:
        store: where inputs are read and artifacts are committed.
        jobs: one spec a shard, in order; recipe: `PairSet.hashed()`, inputs: the shard's clean corpus and the synthesizer.
        execution: how the engine runs.
        progress: told now and then how far it is.
        committed: told of each artifact in the store, and whether it was there before.
        start_engine: called at most once, and only if a chain is missing.

    Raises:
        SynthesisError: a shard failed, or the engine was lost; what was committed stands, finished chains are kept for the next run.
        ValueError: the jobs do not have the same pair set and synthesizer.
    """
    missing = []
    for spec in jobs:
        if store.find(spec) is None:
            missing.append(spec)
        else:
            committed(spec, True)
    if missing:
        _Run(store, missing, execution, progress, committed, start_engine).run()


class _Shard:
    """A shard in flight."""

    def __init__(self, store: Store, spec: Spec, pair_set: PairSet, prompt_format: PromptFormat) -> None:
        self.spec = spec
        self.accounting = Accounting(prompt_format.count, prompt_format.count_escapes)
        self.log = ProgressLog(store, spec)
        corpus = resolve(store, [spec.input(CLEAN_CORPUS)])[CLEAN_CORPUS, spec.partition]
        documents = read_documents(corpus.tables())
        self.passages: list[Passage] = list(
            cut_documents(documents, count_tokens=prompt_format.count, max_tokens=pair_set.passage_tokens, fraction=pair_set.fraction)
        )
        context = generation_context(spec.recipe, spec.code_version, spec.input(SYNTHESIZER).digest)
        self.chains = plan_chains(self.passages, shots=pair_set.shots, context=context)
        wanted = {chain.identity: chain for chain in self.chains}
        self.results: dict[str, Sequence[Shot]] = load_committed(store, spec, wanted) | self.log.load(wanted)
        self.missing: list[Chain] = [chain for identity, chain in wanted.items() if identity not in self.results]
        self._num_left = len(self.missing)
        self.accounting.num_reused_chains = sum(chain.identity in self.results for chain in self.chains)
        self.accounting.num_damaged_progress = self.log.num_damaged

    @property
    def complete(self) -> bool:
        return self._num_left == 0

    def finish(self, run: ChainRun) -> None:
        """Keep a chain's results; those with an engine error are not made durable, so that a rerun tries again."""
        self.accounting.finished(run)
        self.results[run.chain.identity] = run.shots
        self._num_left -= 1
        if all(shot.status != "engine_error" for shot in run.shots):
            self.log.append(run.chain.identity, run.shots)

    def commit(self, store: Store, pair_set: PairSet) -> None:
        """Write and commit the artifact, and remove the progress log."""
        with store.write(self.spec) as draft:
            _write_table(draft.folder / "data-00000.parquet", self.passages, self.chains, self.results)
            results = [self.results[chain.identity] for chain in self.chains]
            draft.statistics |= self.accounting.statistics(self.passages, self.chains, results, pair_set.shots)
            write_preview(draft.folder)
        self.log.remove()


class _Run:
    def __init__(
        self,
        store: Store,
        jobs: Sequence[Spec],
        execution: Execution,
        progress: Progress,
        committed: Committed,
        start_engine: StartEngine,
    ) -> None:
        first = jobs[0]
        if any((job.recipe, job.input(SYNTHESIZER)) != (first.recipe, first.input(SYNTHESIZER)) for job in jobs):
            raise ValueError("the shards of one run must have the same pair set and synthesizer")
        self._store, self._jobs, self._execution = store, jobs, execution
        self._progress, self._committed, self._start_engine = progress, committed, start_engine
        self._pair_set = PairSet.model_validate_json(json.dumps(first.recipe))
        synthesizer = first.input(SYNTHESIZER)
        artifact = resolve(store, [synthesizer])[synthesizer.asset, synthesizer.partition]
        self._checkpoint = artifact.local() / "checkpoint"
        self._format = PromptFormat(self._checkpoint)
        self._engine: Engine | None = None
        self._open: dict[str, _Shard] = {}
        self._failures: dict[str, Exception] = {}
        self._num_passages = self._num_completion_tokens = 0
        self._started = self._reported = time.monotonic()

    def run(self) -> None:
        scheduler = Scheduler(self._chains(), self._start, self._in_flight)
        try:
            for chain in scheduler.run():
                self._finish(chain)
        except EngineLostError as error:
            raise SynthesisError(
                f"{error}; without pairs: {', '.join([*self._failures, *self._open])} and all shards behind it. "
                "Finished chains are kept; materialize again to go on."
            ) from error
        finally:
            for shard in self._open.values():
                self._keep_finished(shard)
            if self._engine is not None:
                self._engine.close()
        if self._failures:
            reasons = "; ".join(f"{partition}: {told(error)}" for partition, error in self._failures.items())
            raise SynthesisError(f"{len(self._failures)} of {len(self._jobs)} shards failed: {reasons}") from next(
                iter(self._failures.values())
            )

    def _chains(self) -> Iterator[ChainRun]:
        """The missing chains of all shards; a shard is opened when the one before it has all its chains in the engine."""
        for spec in self._jobs:
            try:
                shard = _Shard(self._store, spec, self._pair_set, self._format)
            except Exception as error:
                self._fail(spec, error)
                continue
            self._open[spec.partition] = shard
            if not shard.missing:
                self._commit(shard)
                continue
            shard.accounting.started()
            for chain in shard.missing:
                yield ChainRun(chain, self._pair_set, self._format, owner=shard)

    def _start(self) -> Engine:
        start = time.monotonic()
        self._progress({"stage": "starting the engine"})
        self._engine = self._start_engine(self._checkpoint, self._pair_set, self._execution, self._format.eos_id)
        shard = next(reversed(self._open.values()))
        shard.accounting.engine_start_seconds = time.monotonic() - start
        self._started = self._reported = time.monotonic()
        return self._engine

    def _in_flight(self, engine: Engine) -> int:
        shard = next(reversed(self._open.values()))
        sample = [passage.text for passage in shard.passages[:256]]
        mean = sum(self._format.count(sample)) / len(sample)
        return chains_in_flight(engine, shots=self._pair_set.shots, shot_tokens=mean + self._pair_set.max_new_tokens)

    def _finish(self, run: ChainRun) -> None:
        shard = run.owner
        assert isinstance(shard, _Shard)
        shard.finish(run)
        self._num_passages += len(run.shots)
        self._num_completion_tokens += sum(shot.num_completion_tokens for shot in run.shots)
        if shard.complete:
            self._commit(shard)
        now = time.monotonic()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._progress(
                {
                    "stage": "generating",
                    "partition": shard.spec.partition,
                    "passages": self._num_passages,
                    "completion_tokens_per_second": round(self._num_completion_tokens / (now - self._started), 1),
                }
            )

    def _commit(self, shard: _Shard) -> None:
        del self._open[shard.spec.partition]
        try:
            shard.commit(self._store, self._pair_set)
        except Exception as error:
            self._fail(shard.spec, error)
        else:
            self._committed(shard.spec, False)

    def _keep_finished(self, shard: _Shard) -> None:
        try:
            shard.log.flush()
        except Exception:  # what ended the run must not be hidden by what failed behind it
            _LOG.exception("%s: the chains that finished last are not kept", shard.spec.partition)

    def _fail(self, spec: Spec, error: Exception) -> None:
        self._failures[spec.partition] = error
        self._progress({"stage": "failed", "partition": spec.partition, "error": told(error)})


def _write_table(path: Path, passages: Sequence[Passage], chains: Sequence[Chain], results: Mapping[str, Sequence[Shot]]) -> None:
    """One row a passage, in the order of the documents."""
    shots = {
        passage.passage_id: (chain.chain_id, shot)
        for chain in chains
        for passage, shot in zip(chain.passages, results[chain.identity], strict=True)
    }
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for start in range(0, len(passages), _ROW_GROUP):
            rows = [_row(passage, *shots.get(passage.passage_id, (None, None))) for passage in passages[start : start + _ROW_GROUP]]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
        if not passages:
            writer.write_table(SCHEMA.empty_table())


def _row(passage: Passage, chain_id: str | None, shot: Shot | None) -> dict[str, Any]:
    row: dict[str, Any] = {"passage_id": passage.passage_id, "document_id": passage.document_id, "text": passage.text}
    if shot is None:
        return row | {"status": "not_selected", "pairs": [], "num_rejected_pairs": 0, "num_prompt_tokens": 0, "num_completion_tokens": 0}
    return row | {
        "chain_id": f"{chain_id}-{shot.segment}",
        "shot": shot.shot,
        "status": shot.status,
        "pairs": [pair.to_struct() for pair in shot.pairs],
        "num_rejected_pairs": shot.num_rejected_pairs,
        "completion": shot.completion,
        "num_prompt_tokens": shot.num_prompt_tokens,
        "num_completion_tokens": shot.num_completion_tokens,
    }
