"""Running OpenAI-compatible servers (`vllm serve`) as the engine of a pair set: requests out, results in, whatever happens to a server."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

import aiohttp

from instpt_assets.errors import UserError
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import ServerWriter
from instpt_assets.synthesis.server_api import KEY_VARIABLE, OtherModelError, Served, ServerApi, ServerError, open_session, shown_url
from instpt_assets.synthesis.server_pool import Patience, ServerPool
from instpt_assets.synthesis.writing import EngineLostError, Format, Generated, Request, Sampling

_STEP_SECONDS = 1.0
_NUM_REPEATS = 2
"""How often a server that does not say what it serves is asked again before it counts as down."""
_UNKNOWN_KV_TOKENS = 1 << 40
_T = TypeVar("_T")


class ServersError(UserError):
    """The servers cannot be used; the message names them and says what to do."""


class ServerEngine:
    """An `Engine` of writing.py whose requests one or several servers answer. Waits in a thread of its own; `add` and `step` are the caller's.

    Args:
        urls: base URLs of the servers.
        model: the name under which they serve the model.
        sampling: of every request.
        window: tokens that a request may have, its completion included.
        num_requests: to each server at once.
        patience: how long to wait for what.
        count: tokens of texts, for what servers that tell no numbers generated.
        key: sent as a bearer token.

    Attributes:
        kv_tokens: tokens that their KV caches hold, as far as they tell; else so many that it does not matter.
        max_num_seqs: requests to all of them at once.

    Raises:
        ServersError: a server serves another model, or with a smaller window, or none answers.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        sampling: Sampling,
        *,
        window: int,
        num_requests: int,
        patience: Patience,
        count: Callable[[Sequence[str]], list[int]],
        key: str | None = None,
    ) -> None:
        self.max_num_seqs = num_requests * len(urls)
        self._names = ", ".join(map(shown_url, urls))
        self._model = model
        self._window = window
        self._patience = patience
        self._count = count
        self._results = queue.SimpleQueue[Generated | None]()
        self._lost = ""
        self._gone = False
        self._session: aiohttp.ClientSession | None = None
        self._pool: ServerPool | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()
        try:
            self.kv_tokens = self._wait(self._open(urls, sampling, num_requests, key))
        except BaseException:
            self.close()
            raise

    def add(self, request: Request) -> None:
        """Queue a request."""
        assert self._pool is not None
        self._loop.call_soon_threadsafe(self._pool.add, request)

    def step(self) -> list[Generated]:
        """What ended, after waiting about a second for something at most.

        Raises:
            EngineLostError: no server worked for too long, or they refuse every request.
        """
        ended = list[Generated]()
        try:
            while not self._gone and (generated := self._results.get(timeout=0 if ended else _STEP_SECONDS)) is not None:
                ended.append(self._counted(generated))
            self._gone = True
        except queue.Empty:
            pass
        if self._gone and not ended:
            raise EngineLostError(self._lost)
        return ended

    def close(self) -> None:
        """Give up what is still on its way."""
        if self._loop.is_closed():
            return
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _counted(self, generated: Generated) -> Generated:
        if generated.num_tokens or not generated.text:
            return generated
        return replace(generated, num_tokens=self._count([generated.text])[0])

    def _wait(self, coroutine: Coroutine[None, None, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _open(self, urls: Sequence[str], sampling: Sampling, num_requests: int, key: str | None) -> int:
        self._session = open_session(key)
        apis = [ServerApi(self._session, url, self._model, sampling, key) for url in urls]
        found = dict(zip(apis, await asyncio.gather(*(self._ask(api) for api in apis)), strict=True))
        for answer in found.values():
            if isinstance(answer, ServersError):
                raise answer
        down = {api: str(answer) for api, answer in found.items() if isinstance(answer, ServerError)}
        if len(down) == len(apis):
            raise ServersError(f"no server of {self._model} works: {'; '.join(down.values())}. Start one, or correct synthesis.servers")
        self._pool = ServerPool(apis, down, num_requests=num_requests, patience=self._patience, ended=self._results.put, lost=self._give_up)
        told = [answer.kv_tokens for answer in found.values() if isinstance(answer, Served)]
        return sum(number or 0 for number in told) if all(told) else _UNKNOWN_KV_TOKENS

    async def _ask(self, api: ServerApi) -> Served | ServerError | ServersError:
        """What the server tells, or why it cannot be used: not now, or not at all."""
        seconds = self._patience.first_backoff
        while True:
            try:
                served = await api.find_model()
            except OtherModelError as error:
                return ServersError(f"{error}: correct synthesis.servers of the execution profile, or the pair set's writer.model")
            except ServerError as error:
                if seconds >= self._patience.first_backoff * 2**_NUM_REPEATS:
                    return error
                await asyncio.sleep(seconds)
                seconds *= 2
            else:
                if served.max_model_len is not None and served.max_model_len < self._window:
                    return ServersError(
                        f"{api.url} serves {self._model} with a window of {served.max_model_len} tokens, but the recipe's max_model_len is "
                        f"{self._window}: start the server with --max-model-len {self._window}, or lower max_model_len in the recipe"
                    )
                return served

    async def _close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        if self._session is not None:
            await self._session.close()

    def _give_up(self, problem: str) -> None:
        self._lost = (
            f"nothing can be had from the servers of {self._model} ({self._names}): {problem}. See to them, or correct synthesis.servers in the "
            "execution profile, then materialize again"
        )
        self._results.put(None)


def start_servers(pair_set: PairSet, execution: Execution, writer_format: Format) -> ServerEngine:
    """The engine of a pair set whose writer is behind servers.

    Args:
        pair_set: names the model.
        execution: says where its servers are.
        writer_format: how the writer is asked.

    Raises:
        ServersError: the execution profile names no server of it, or they cannot be used.
    """
    writer, settings = pair_set.writer, execution.synthesis
    assert isinstance(writer, ServerWriter)
    urls = settings.servers.get(writer.model, ())
    if not urls:
        known = ", ".join(sorted(settings.servers)) or "no model"
        raise ServersError(
            f"the execution profile has no URL for the model {writer.model}, which the recipe leaves to servers (its synthesis.servers names "
            f"{known}): add `{writer.model}: [http://host:8000/v1]` under synthesis.servers"
        )
    return ServerEngine(
        urls,
        writer.model,
        Sampling(pair_set.temperature, pair_set.seed, writer_format.stop_token_ids, writer_format.json_schema),
        window=pair_set.max_model_len,
        num_requests=settings.server_requests,
        patience=Patience(no_sign=settings.watchdog_seconds),
        count=writer_format.count,
        key=(os.environ.get(KEY_VARIABLE) or "").strip() or None,
    )
