"""The engine behind servers: real HTTP, and servers that fail in every way that servers do."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from aiohttp import web

from instpt_assets.recipe.execution import Execution, SynthesisExecution
from instpt_assets.recipe.synthesis import PairSet
from instpt_assets.recipe.writers import ServerWriter
from instpt_assets.synthesis.chat import ServerChatFormat
from instpt_assets.synthesis.server_pool import Patience
from instpt_assets.synthesis.servers import ServerEngine, ServersError, start_servers
from instpt_assets.synthesis.writing import EngineLostError, Generated, Prompt, Request, Sampling
from instpt_assets_tests.synthesis.openai_server import PAIRS, Answer, OpenAiServer, cut_off, good, hang, hang_up, status

QUICK = Patience(no_sign=5.0, first_backoff=0.02, longest_backoff=0.1, first_probe=0.05, longest_probe=0.1)
SAMPLING = Sampling(temperature=0.0, seed=0, stop_token_ids=(2,), json_schema={"type": "object"})
NATIVE = Prompt([1, 8, 9], 3)
Serve = Callable[..., OpenAiServer]
Connect = Callable[..., ServerEngine]


def count(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def completion(choice: dict[str, Any], **more: Any) -> Answer:
    return status(200, text=json.dumps({"choices": [choice]} | more))


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = list[OpenAiServer]()

    def start(*answers: Any, **settings: Any) -> OpenAiServer:
        servers.append(OpenAiServer(*answers, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    engines = list[ServerEngine]()

    def start(
        *servers: OpenAiServer, sampling: Sampling = SAMPLING, patience: Patience = QUICK, num_requests: int = 8, **more: Any
    ) -> ServerEngine:
        urls = [server.url for server in servers]
        settings = {"window": 256, "num_requests": num_requests, "patience": patience, "count": count} | more
        engines.append(ServerEngine(urls, "writer", sampling, **settings))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def chat(number: int, *, chain: str | None = None, priority: int = 0) -> Request:
    prompt = Prompt([{"role": "user", "content": f"passage {number}"}], 9)
    return Request(f"r{number}", chain or f"c{number}", prompt, max_tokens=16, priority=priority)


def ended(engine: ServerEngine, number: int, seconds: float = 20) -> dict[str, Generated]:
    """At least so many results, by request; fails if one comes twice or too few in time."""
    results, deadline = dict[str, Generated](), time.monotonic() + seconds
    while len(results) < number and time.monotonic() < deadline:
        for generated in engine.step():
            assert generated.request_id not in results
            results[generated.request_id] = generated
    assert len(results) >= number
    return results


def run(engine: ServerEngine, requests: list[Request]) -> dict[str, Generated]:
    for request in requests:
        engine.add(request)
    results = ended(engine, len(requests))
    assert len(results) == len(requests)
    return results


def test_a_chat_request_and_what_comes_back(serve: Serve, connect: Connect) -> None:
    server = serve()
    results = run(connect(server, key="secret"), [chat(1)])
    assert results["r1"] == Generated("r1", text=PAIRS, num_tokens=3, num_prompt_tokens=21, num_cached_tokens=16)
    assert server.bodies == [
        {
            "model": "writer",
            "messages": [{"role": "user", "content": "passage 1"}],
            "max_tokens": 16,
            "temperature": 0.0,
            "response_format": {"type": "json_schema", "json_schema": {"name": "pairs", "schema": {"type": "object"}}},
        }
    ]
    assert server.keys == ["Bearer secret"]


def test_text_that_no_encoding_can_write_does_not_come_through(serve: Serve, connect: Connect) -> None:
    text = "<QUE> \U0001f600 \udc00"
    server = serve([completion({"message": {"content": text}}), completion({"text": text})])
    engine = connect(server)
    assert run(engine, [chat(1)])["r1"].text == "<QUE> \U0001f600 \ufffd"
    assert run(engine, [Request("r2", "c", NATIVE, max_tokens=4, priority=0)])["r2"].text == "<QUE> \U0001f600 \ufffd"

    async def refuse(server: OpenAiServer, body: dict[str, Any]) -> web.StreamResponse:
        return web.Response(status=400, body=b"+2AA-", headers={"Content-Type": "text/plain; charset=utf-7"})

    server.answer = refuse
    error = run(engine, [chat(3)])["r3"].error
    assert error is not None and error.endswith("400 \ufffd")


def test_tokens_that_a_server_does_not_tell_are_counted(serve: Serve, connect: Connect) -> None:
    choice = {"message": {"content": "river"}}
    server = serve([completion(choice), completion(choice, usage={"completion_tokens": 3})])
    engine = connect(server)
    assert [run(engine, [chat(number)])[f"r{number}"].num_tokens for number in (1, 2)] == [5, 3]


def test_a_native_request_sends_ids_and_gets_ids_or_else_text(serve: Serve, connect: Connect) -> None:
    async def text_alone(server: OpenAiServer, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"choices": [{"text": "<QUE> a", "finish_reason": "length"}]})

    server = serve([good, text_alone])
    engine = connect(server)
    results = [run(engine, [Request(name, "c", NATIVE, max_tokens=4, priority=0)])[name] for name in "ab"]
    assert results[0] == Generated("a", token_ids=(5, 6, 7), num_tokens=3, num_prompt_tokens=21, num_cached_tokens=16)
    assert results[1] == Generated("b", text="<QUE> a", num_tokens=7)
    body = server.bodies[0]
    assert (body["prompt"], body["stop_token_ids"], body["return_token_ids"], body["skip_special_tokens"]) == ([1, 8, 9], [2], True, False)
    assert "response_format" not in body


def test_sampling_is_seeded_by_pair_set_and_chain(serve: Serve, connect: Connect) -> None:
    server = serve()
    for seed in (0, 0, 1):
        run(connect(server, sampling=Sampling(temperature=0.7, seed=seed)), [chat(1, chain="c"), chat(2, chain="d")])
    seeds = [body["seed"] for body in sorted(server.bodies, key=lambda body: body["messages"][0]["content"])]
    assert seeds[0] == seeds[1] != seeds[2] and seeds[3] == seeds[4] != seeds[5] and len(set(seeds)) == 4


@pytest.mark.parametrize(
    "failure",
    [status(500), status(502), status(408), status(409), status(425), status(429, {"Retry-After": "0"}), status(429), cut_off, hang_up,
     status(200, text="<html>"), status(200, text="[]"), status(200, text='{"choices": []}'),
     completion({"message": {"content": "x"}, "finish_reason": "abort"}), status(200, text="[" * 100_000),
     completion({"message": {"content": [1]}}), completion({"message": {"content": 7}}),
     *(completion({"message": {"content": "x"}}, usage=usage)
       for usage in (7, [1], {"completion_tokens": "3"}, {"prompt_tokens": 1e3}, {"prompt_tokens_details": {"cached_tokens": -1}}))],
)  # fmt: skip
def test_what_may_pass_is_tried_again(failure: Answer, serve: Serve, connect: Connect) -> None:
    server = serve([failure, failure])
    assert run(connect(server), [chat(1)])["r1"].text == PAIRS
    assert len(server.bodies) == 3


@pytest.mark.parametrize("ids", [7, "abc", [[1]], ["5"], [1.5], [True], [-1], [2**32]])
def test_what_is_no_list_of_token_ids_is_tried_again(ids: object, serve: Serve, connect: Connect) -> None:
    server = serve([completion({"text": "x", "token_ids": ids})])
    assert run(connect(server), [Request("r1", "c", NATIVE, max_tokens=4, priority=0)])["r1"].token_ids == (5, 6, 7)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("answer", "num_sent"),
    [
        (status(400, text='{"error": {"message": "too long"}}'), 1),
        (status(422, text="too long"), 1),
        (status(200, text='{"choices": [{"message": {}, "finish_reason": "content_filter"}], "why": "too long"}'), 1),
        (status(409, text="too long"), 6),
    ],
)
def test_a_request_that_fails_for_good_has_an_error_and_harms_no_other(
    answer: Answer, num_sent: int, serve: Serve, connect: Connect
) -> None:
    async def one_fails(server: OpenAiServer, body: dict[str, Any]) -> web.StreamResponse:
        return await (answer if body["messages"][0]["content"] == "passage 1" else good)(server, body)

    server = serve(one_fails)
    results = run(connect(server), [chat(number) for number in range(4)])
    assert [results[f"r{number}"].error is None for number in range(4)] == [True, False, True, True]
    error = results["r1"].error
    assert error is not None and ("too long" in error or "content_filter" in error) and not results["r1"].engine_died
    assert len(server.bodies) == 3 + num_sent


def test_a_busy_server_is_asked_again_when_it_wants_to_be(serve: Serve, connect: Connect) -> None:
    server = serve([status(429, {"Retry-After": "1"})])
    engine = connect(server, num_requests=1)
    start = time.monotonic()
    results = run(engine, [chat(1), chat(2)])
    assert time.monotonic() - start >= 1.0 and len(server.bodies) == 3
    assert all(generated.error is None for generated in results.values())


def test_chains_stick_to_a_server_and_new_ones_go_where_least_is_to_do(serve: Serve, connect: Connect) -> None:
    servers = [serve(), serve(), serve()]
    engine = connect(*servers)
    for shot in range(3):
        run(engine, [chat(10 * shot + number, chain=f"c{number}") for number in range(9)])
    sent = [{int(body["messages"][0]["content"].removeprefix("passage ")) for body in server.bodies} for server in servers]
    assert sum(len(numbers) for numbers in sent) == 27
    for numbers in sent:
        chains = {number % 10 for number in numbers}
        assert len(numbers) == 3 * len(chains)  # all shots of a chain, and none of another's
        assert 2 <= len(chains) <= 4  # some have ended before the last one came


def test_no_server_gets_more_requests_at_once_than_it_may_and_the_urgent_ones_come_first(serve: Serve, connect: Connect) -> None:
    all_added = threading.Event()

    async def slow(server: OpenAiServer, body: dict[str, Any]) -> web.StreamResponse:
        while not all_added.is_set():
            await asyncio.sleep(0.01)
        return await good(server, body)

    server = serve(slow)
    engine = connect(server, num_requests=2)
    assert engine.max_num_seqs == 2
    for number in range(20):
        engine.add(chat(number, priority=-number))
    while len(server.bodies) < 2:
        time.sleep(0.01)
    all_added.set()
    ended(engine, 20)
    assert server.most_at_once == 2
    order = [int(body["messages"][0]["content"].removeprefix("passage ")) for body in server.bodies]
    assert order[2:] == sorted(order[2:], reverse=True)


def test_the_requests_and_chains_of_a_server_that_dies_go_to_the_others(serve: Serve, connect: Connect) -> None:
    dying, other = serve(hang), serve()
    engine = connect(dying, other, num_requests=16)
    for number in range(20):
        engine.add(chat(number))
    first = ended(engine, 10)
    dying.stop()
    results = first | ended(engine, 20 - len(first))
    assert len(results) == 20
    assert all(generated.text == PAIRS and not generated.engine_died for generated in results.values())
    engine.add(chat(20, chain="c0"))
    assert ended(engine, 1)["r20"].text == PAIRS


def test_a_server_that_comes_back_is_used_again(serve: Serve, connect: Connect) -> None:
    server, other = serve(), serve()
    engine = connect(server, other)
    server.stop()
    run(engine, [chat(number) for number in range(12)])
    assert not server.bodies
    server.start()
    deadline, number = time.monotonic() + 10, 100
    while len(server.bodies) < 5 and time.monotonic() < deadline:
        run(engine, [chat(number + more) for more in range(4)])
        number += 4
    assert len(server.bodies) >= 5


def test_a_server_that_only_lists_its_model_is_on_trial_with_one_request_at_a_time(serve: Serve, connect: Connect) -> None:
    broken, other = serve(status(500)), serve()
    engine = connect(broken, other)
    results, number = run(engine, [chat(number) for number in range(20)]), 20
    broken.most_at_once, num_sent = 0, len(broken.bodies)
    deadline = time.monotonic() + 10
    while len(broken.bodies) < num_sent + 3 and time.monotonic() < deadline:
        results |= run(engine, [chat(number + more) for more in range(20)])
        number += 20
    assert broken.most_at_once == 1 and broken.num_listings >= 3
    assert all(generated.error is None for generated in results.values())


@pytest.mark.parametrize("answer", [hang, status(429, {"Retry-After": "60"})])
def test_a_server_that_gives_no_result_for_too_long_loses_its_requests_to_the_others(
    answer: Answer, serve: Serve, connect: Connect
) -> None:
    silent, other = serve(answer), serve()
    engine = connect(silent, other, patience=Patience(no_sign=0.5, first_backoff=0.02, first_probe=0.05, longest_probe=0.1))
    results = run(engine, [chat(number) for number in range(8)])
    assert all(generated.text == PAIRS for generated in results.values())


@pytest.mark.parametrize("answer", [None, hang, status(500), status(401, text="wrong key secret"), status(429)])
def test_when_all_servers_are_down_for_too_long_the_engine_is_lost(answer: Answer | None, serve: Serve, connect: Connect) -> None:
    servers = [serve(answer or good), serve(answer or good)]
    patience = Patience(no_sign=0.4, first_backoff=0.02, longest_backoff=0.05, first_probe=0.02, longest_probe=0.05)
    engine = connect(*servers, patience=patience, key="secret")
    for server in servers:
        if answer is None:
            server.stop()
    for number in range(3):
        engine.add(chat(number, chain=f"c{number}"))
    with pytest.raises(EngineLostError, match=r"synthesis\.servers") as error:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            # A request that was tried often enough may end first; others take its place.
            for generated in engine.step():
                assert generated.error is not None and "secret" not in generated.error
                number += 1
                engine.add(chat(number))
    assert all(server.url in str(error.value) for server in servers)
    assert "secret" not in str(error.value)


def test_servers_that_refuse_every_request_do_not_spoil_a_corpus(serve: Serve, connect: Connect) -> None:
    engine = connect(serve(status(400, text="response_format is not supported")))
    with pytest.raises(EngineLostError, match="32 requests in a row were refused: .*response_format is not supported"):
        run(engine, [chat(number) for number in range(1000)])


def test_an_idle_engine_is_not_lost(serve: Serve, connect: Connect) -> None:
    server = serve()
    engine = connect(server, patience=Patience(no_sign=0.2, first_backoff=0.02, longest_backoff=0.05, first_probe=0.02, longest_probe=0.05))
    server.stop()
    assert not engine.step()
    server.start()
    assert run(engine, [chat(1)])["r1"].text == PAIRS


def test_a_server_of_another_model_is_named_with_what_it_serves(serve: Serve, connect: Connect) -> None:
    right, wrong = serve(), serve(model="other-7b")
    with pytest.raises(ServersError, match="serves other-7b, not writer") as error:
        connect(right, wrong)
    assert wrong.url in str(error.value) and right.url not in str(error.value)


def test_a_server_that_comes_back_with_another_model_gets_nothing(serve: Serve, connect: Connect) -> None:
    server, other = serve(), serve()
    engine = connect(server, other)
    server.stop()
    run(engine, [chat(number) for number in range(8)])
    server.model = "other-7b"
    server.start()
    for start in range(10, 50, 10):
        run(engine, [chat(number) for number in range(start, start + 10)])
    assert not server.bodies


def test_a_start_without_any_server_tells_every_url_and_no_password(serve: Serve, connect: Connect) -> None:
    server = serve()
    server.stop()
    url = server.url.replace("//", "//user:hidden@")
    with pytest.raises(ServersError, match="no server of writer works") as error:
        ServerEngine([url, server.url], "writer", SAMPLING, window=256, num_requests=1, patience=QUICK, count=count)
    assert server.url in str(error.value) and "hidden" not in str(error.value)


def test_a_start_with_one_of_two_servers_goes_on(serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    server, down = serve(), serve()
    down.stop()
    with caplog.at_level(logging.WARNING):
        engine = connect(down, server)
    assert down.url in caplog.text
    assert all(generated.error is None for generated in run(engine, [chat(number) for number in range(4)]).values())


def test_vllm_tells_its_window_and_its_cache(serve: Serve, connect: Connect) -> None:
    metric = 'vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="100"} 1.0\n'
    large, small = serve(card={"max_model_len": 256}, metrics=metric), serve(card={"max_model_len": 255})
    engine = connect(large)
    assert engine.kv_tokens == 3200
    run(engine, [chat(1)])
    assert large.bodies[0]["chat_template_kwargs"]["enable_thinking"] is False
    with pytest.raises(ServersError, match="max_model_len is 256"):
        connect(small)
    with pytest.raises(ServersError, match="no server of writer works: .* says that max_model_len is '256'"):
        connect(serve(card={"max_model_len": "256"}))


def test_closing_gives_up_what_is_on_its_way(serve: Serve, connect: Connect) -> None:
    server = serve(hang)
    engine = connect(server)
    engine.add(chat(1))
    deadline = time.monotonic() + 5
    while not server.bodies and time.monotonic() < deadline:
        time.sleep(0.01)
    start = time.monotonic()
    engine.close()
    engine.close()
    assert time.monotonic() - start < 4 and server.bodies


def test_the_execution_profile_says_where_the_servers_are(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    monkeypatch.setenv("INSTPT_SERVER_API_KEY", " secret\n")
    pair_set = PairSet(writer=ServerWriter(kind="server", model="writer"), shots=1)
    server_format = ServerChatFormat(pair_set.writer)  # type: ignore[arg-type]
    with pytest.raises(
        ServersError, match=r"no URL for the model writer, which the recipe leaves to servers \(its synthesis\.servers names another\)"
    ):
        start_servers(pair_set, Execution(synthesis=SynthesisExecution(servers={"another": (server.url,)})), server_format)
    settings = SynthesisExecution(servers={"writer": (server.url,)}, server_requests=5)
    engine = start_servers(pair_set, Execution(synthesis=settings), server_format)
    try:
        prompt = server_format.prompt(None, "The river flows.")
        engine.add(Request("r1", "c1", prompt, max_tokens=16, priority=0))
        generated = ended(engine, 1)["r1"]
    finally:
        engine.close()
    assert [(pair.instruction, pair.response) for pair in server_format.read(generated)[1].pairs] == [("What flows?", "The river")]
    assert engine.max_num_seqs == 5 and server.keys == ["Bearer secret"]
    assert server.bodies[0]["response_format"]["json_schema"]["schema"] == server_format.json_schema
