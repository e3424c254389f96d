"""The depth-first scheduler: which request the engine gets next, and what a finished one means for its chain.

It knows the engine only as a protocol. A limited number of chains is in flight, one request each; a chain's next shot enters as soon as
the one before it is done and goes ahead of the first shots of other chains, so that its prefix is still in the KV cache.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.synthesis.chains import Chain
from instpt_assets.synthesis.parser import parse
from instpt_assets.synthesis.prompt import Pair, PromptFormat

Status = Literal["ok", "no_valid_pair", "engine_error"]
NUM_TRIES = 2
"""How often a request is given to the engine before its passage ends as `engine_error`."""
_OVERCOMMIT = 1.4
"""Full chains in flight for each that the KV cache holds: most are at an early shot, and most completions are shorter than allowed."""


@dataclass(frozen=True)
class Generated:
    """What the engine made of a request: the new ids (`</s>` included, if it came), or the error."""

    request_id: str
    token_ids: tuple[int, ...] = ()
    num_cached_tokens: int = 0
    """Prompt tokens that the engine did not compute again."""
    error: str | None = None


class EngineLostError(Exception):
    """The engine failed as a whole; the chains that were in it have no result."""


class Engine(Protocol):
    """What generates. `add` queues a request; `step` advances all queued ones and returns those that ended."""

    kv_tokens: int
    """Tokens that the KV cache holds."""
    max_num_seqs: int
    """Sequences decoded at once."""

    def add(self, request_id: str, token_ids: list[int], max_tokens: int, priority: int) -> None:
        """Queue a request; of waiting ones the engine takes those with the lower priority number first.

        Raises:
            ValueError: the engine refuses this request.
        """

    def step(self) -> list[Generated]:
        """Advance, and return what ended. An exception means that the engine is lost."""

    def close(self) -> None:
        """End the engine, its processes included."""


@dataclass(frozen=True)
class Shot:
    """A passage's result."""

    segment: int
    """How often the chain restarted before it."""
    shot: int
    """Earlier passages of its chain that stood in its prompt."""
    status: Status
    pairs: tuple[Pair, ...]
    num_rejected_pairs: int
    completion: str
    num_prompt_tokens: int
    num_completion_tokens: int


@dataclass
class Usage:
    """Counts of what the engine did for one chain, and what failed in it."""

    num_cached_prompt_tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)


class ChainRun:
    """One chain on its way through the engine.

    Attributes:
        chain: the chain.
        shots: results so far, one a passage.
        usage: what it cost beside what the shots tell.
        owner: whose chain it is; the scheduler does not look at it.
    """

    def __init__(self, chain: Chain, pair_set: PairSet, prompt_format: PromptFormat, owner: object = None) -> None:
        self.chain = chain
        self.owner = owner
        self.shots: list[Shot] = []
        self.usage = Usage()
        self._pair_set = pair_set
        self._format = prompt_format
        self._prefix: list[int] = []
        self._segment = self._shot = self._tries = 0
        self._prompt: list[int] = []

    @property
    def done(self) -> bool:
        """Whether every passage has a result."""
        return len(self.shots) == len(self.chain.passages)

    def next_request(self) -> tuple[list[int], int, int] | None:
        """Prompt ids, tokens to generate at most and priority of the next shot; None if the chain is done.

        A prefix with which the window would be too small is dropped, and the chain restarts. A passage for which the window is too small
        even so gets what is left of it, or ends as `engine_error` if nothing is.
        """
        while not self.done:
            context = self._format.encode_context(self.chain.passages[len(self.shots)].text)
            window, wanted = self._pair_set.max_model_len, self._pair_set.max_new_tokens
            if self._prefix and len(self._prefix) + len(context) + wanted > window:
                self._restart()
            self._prompt = [*self._prefix, *context]
            room = min(wanted, window - len(self._prompt))
            if room > 0:
                return self._prompt, room, -self._shot
            self._fail(f"the passage's {len(self._prompt)} tokens do not fit max_model_len {window}")
        return None

    def accept(self, generated: Generated) -> None:
        """Take the result of the last request; after an error the same request comes once more."""
        if generated.error is not None:
            self._tries += 1
            if self._tries == NUM_TRIES:
                self._fail(generated.error)
            return
        ids = list(generated.token_ids)
        completion = self._format.decode(ids)
        parsed = parse(completion)
        self.usage.num_cached_prompt_tokens += generated.num_cached_tokens
        self._record("ok" if parsed.pairs else "no_valid_pair", parsed.pairs, sum(parsed.rejected.values()), completion, len(ids))
        if not parsed.pairs:
            self._restart()
            return
        # As generated where it ended by itself; a completion that was cut off is closed behind its last valid pair.
        ended = bool(ids) and ids[-1] == self._format.eos_id
        self._prefix = [*self._prompt, *(ids if ended else self._format.encode_pairs(parsed.pairs))]
        self._shot += 1

    def _fail(self, error: str) -> None:
        self.usage.errors[error] += 1
        self._record("engine_error", (), 0, "", 0)
        self._restart()

    def _record(self, status: Status, pairs: tuple[Pair, ...], num_rejected: int, completion: str, num_tokens: int) -> None:
        self.shots.append(Shot(self._segment, self._shot, status, pairs, num_rejected, completion, len(self._prompt), num_tokens))
        self._tries = 0

    def _restart(self) -> None:
        self._prefix, self._shot = [], 0
        self._segment += 1


def chains_in_flight(engine: Engine, *, shots: int, shot_tokens: float) -> int:
    """Chains to keep in the engine at once: enough to fill it, few enough that a chain's prefix is still cached when it comes back.

    Args:
        engine: a started engine.
        shots: longest chain, M.
        shot_tokens: tokens of a passage and its completion, about.
    """
    if shots == 1:
        return engine.max_num_seqs
    return max(1, min(engine.max_num_seqs, int(_OVERCOMMIT * engine.kv_tokens / (shots * shot_tokens))))


class Scheduler:
    """Keeps `max_in_flight` chains in the engine until the source has no more.

    Args:
        source: chains to run; asked for the next one only when there is room for it.
        start_engine: called once, before the first request; never if no chain has one.
        max_in_flight: chains in the engine at once, given the engine.
    """

    def __init__(self, source: Iterator[ChainRun], start_engine: Callable[[], Engine], max_in_flight: Callable[[Engine], int]) -> None:
        self._source = source
        self._start_engine = start_engine
        self._max_in_flight = max_in_flight
        self._engine: Engine | None = None
        self._room = 1
        self._running: dict[str, ChainRun] = {}
        self._num_requests = 0

    def run(self) -> Iterator[ChainRun]:
        """Yield each chain when its last passage has a result.

        Raises:
            EngineLostError: a step of the engine raised.
        """
        while True:
            while len(self._running) < self._room and (chain := next(self._source, None)) is not None:
                if not self._submit(chain):
                    yield chain
            if not self._running:
                return
            assert self._engine is not None
            try:
                ended = self._engine.step()
            except Exception as error:
                raise EngineLostError(f"the engine was lost: {type(error).__name__}: {error}") from error
            for generated in ended:
                chain = self._running.pop(generated.request_id)
                chain.accept(generated)
                if not self._submit(chain):
                    yield chain

    def _submit(self, chain: ChainRun) -> bool:
        """Give the chain's next request to the engine; False if it has none left."""
        while (request := chain.next_request()) is not None:
            if self._engine is None:
                self._engine = self._start_engine()
                self._room = self._max_in_flight(self._engine)
            request_id = f"{self._num_requests}"
            self._num_requests += 1
            try:
                self._engine.add(request_id, *request)
            except ValueError as error:
                chain.accept(Generated(request_id, error=f"{type(error).__name__}: {error}"))
            else:
                self._running[request_id] = chain
                return True
        return False
