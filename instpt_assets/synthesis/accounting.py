"""What a shard's pairs cost and gave: counts of its passages, pairs and tokens, accepted against wasted, and the engine's speed."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from instpt_assets.synthesis.chains import Chain, CountTokens, Passage
from instpt_assets.synthesis.parser import parse
from instpt_assets.synthesis.prompt import answer_text, question_text
from instpt_assets.synthesis.scheduler import ChainRun, Shot


class Accounting:
    """Collects the statistics of one shard.

    Args:
        count_tokens: tokens of each text, as the synthesizer counts.
        count_escapes: markers in a text that its prompt holds escaped.
    """

    def __init__(self, count_tokens: CountTokens, count_escapes: Callable[[str], int]) -> None:
        self._count_tokens = count_tokens
        self._count_escapes = count_escapes
        self._opened = time.monotonic()
        self._first_start: float | None = None
        self._last_end = 0.0
        self._generated = Counter[str]()
        self._errors = Counter[str]()
        self.engine_start_seconds = 0.0
        """Seconds that the engine took to start, if it was started for this shard."""
        self.num_reused_chains = 0
        """Chains taken from an interrupted run or an earlier artifact."""
        self.num_damaged_progress = 0
        """Lines of the progress log that could not be used."""

    def started(self) -> None:
        """A chain of the shard goes to the engine."""
        if self._first_start is None:
            self._first_start = time.monotonic()

    def finished(self, run: ChainRun) -> None:
        """A chain of the shard came back."""
        self._last_end = time.monotonic()
        self._errors.update(run.usage.errors)
        self._generated.update(
            chains=1,
            passages=len(run.shots),
            prompt_tokens=sum(shot.num_prompt_tokens for shot in run.shots),
            cached_prompt_tokens=run.usage.num_cached_prompt_tokens,
            completion_tokens=sum(shot.num_completion_tokens for shot in run.shots),
        )

    def statistics(
        self, passages: Sequence[Passage], chains: Sequence[Chain], results: Sequence[Sequence[Shot]], num_shots: int
    ) -> dict[str, Any]:
        """The statistics of the finished shard.

        Args:
            passages: all of the shard, the ones that were not chosen included.
            chains: the chains over the chosen ones.
            results: each chain's shots.
            num_shots: longest chain, M.

        Returns:
            Counts over the whole artifact; under `generated` those of this run alone (what was reused cost nothing now); `seconds` from
            the opening of the shard on, `steady_seconds` from its first request to its last result without the engine's start (shards
            overlap: their seconds do not add up).
        """
        shots = [shot for chain in results for shot in chain]
        status = Counter[str](shot.status for shot in shots)
        status["not_selected"] = len(passages) - len(shots)
        rejected = Counter[str]()
        for shot in shots:
            rejected.update(parse(shot.completion).rejected)
        pairs = [pair for shot in shots for pair in shot.pairs]
        accepted = self._count_tokens(
            [f"{question_text(p.instruction, p.options, p.reasoning)} {answer_text(p.response, p.reasoning)}" for p in pairs]
        )
        statistics: dict[str, Any] = {
            "num_rows": len(passages),
            "num_passages": len(passages),
            "num_documents": len({passage.document_id for passage in passages}),
            "num_chains": len(chains),
            "num_short_chains": sum(len(chain.passages) < num_shots for chain in chains),
            "status": {name: status[name] for name in ("ok", "no_valid_pair", "engine_error", "not_selected")},
            "num_pairs": len(pairs),
            "rejected_pairs": dict(sorted(rejected.items())),
            "num_prompt_tokens": sum(shot.num_prompt_tokens for shot in shots),
            "num_completion_tokens": sum(shot.num_completion_tokens for shot in shots),
            "num_accepted_tokens": sum(accepted),
            "num_escaped_markers": sum(self._count_escapes(p.text) for p in passages if p.selected),
            "reused_chains": self.num_reused_chains,
            "generated": {f"num_{name}": number for name, number in sorted(self._generated.items())},
            "engine_start_seconds": round(self.engine_start_seconds, 3),
            "seconds": round(time.monotonic() - self._opened, 3),
        }
        if self._first_start is not None:
            steady = max(self._last_end - self._first_start - self.engine_start_seconds, 1e-3)
            statistics |= {
                "steady_seconds": round(steady, 3),
                "passages_per_second": round(self._generated["passages"] / steady, 2),
                "completion_tokens_per_second": round(self._generated["completion_tokens"] / steady, 1),
            }
        if self._errors:
            statistics["engine_errors"] = dict(self._errors.most_common(10))
        if self.num_damaged_progress:
            statistics["damaged_progress_lines"] = self.num_damaged_progress
        return statistics
