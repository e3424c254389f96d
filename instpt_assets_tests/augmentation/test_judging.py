"""A model's verdicts on pairs: what it reads, what is counted, what becomes of pairs that it cannot judge; and a real one on the CPU."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from aiohttp import web
from light_project import CORPUS, LightProject
from tokenizers import AddedToken

from instpt_assets.augmentation.judging import ANSWER_FORMAT, JUDGED, Judgement, Question, Verdict, judge_pairs, read_verdict
from instpt_assets.augmentation.layouts import Pair
from instpt_assets.defs.attributes import GPU_POOL
from instpt_assets.defs.plan import Plan
from instpt_assets.defs.shards import range_tags
from instpt_assets.recipe.execution import Execution, SynthesisExecution
from instpt_assets.recipe.quality import CorpusQuality, Judge
from instpt_assets.synthesis.writing import Generated, Request
from instpt_assets_tests.defs.spelled_model import save_model
from instpt_assets_tests.synthesis.chat_models import save_chatml
from instpt_assets_tests.synthesis.openai_server import OpenAiServer

GOOD = '{"relevant":true,"accurate":false}'


class ScriptedEngine:
    """Answers each request as it is told by words of its prompt; with `die` in it, it dies with all that it has."""

    kv_tokens, max_num_seqs = 1 << 20, 2

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers, self._requests = answers, list[Request]()
        self.groups = list[list[str]]()
        self.closed = False

    def add(self, request: Request) -> None:
        if "refuse" in str(request.prompt.content):
            raise ValueError("refused")
        self._requests.append(request)

    def step(self) -> list[Generated]:
        self.groups.append([request.request_id for request in self._requests])
        requests, self._requests = self._requests, []
        if any("die" in str(request.prompt.content) for request in requests):
            return [Generated(request.request_id, engine_died=True, error="killed") for request in requests]
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Generated:
        text = next((answer for word, answer in self._answers.items() if word in str(request.prompt.content)), GOOD)
        return Generated(request.request_id, text=text, num_tokens=9, num_prompt_tokens=50)

    def close(self) -> None:
        self.closed = True


def ask(pairs: Sequence[tuple[str, Pair]], answers: dict[str, str] | None = None, **judge: Any) -> tuple[Judgement, ScriptedEngine]:
    engine = ScriptedEngine(answers or {})
    recipe = Judge(kind="server", model="any", **judge)
    questions = [Question(f"p{number}", passage, pair) for number, (passage, pair) in enumerate(pairs)]
    return judge_pairs(questions, recipe, None, Execution(), start_engine=lambda *_: engine), engine


def test_every_pair_ends_with_a_verdict_or_a_reason() -> None:
    pair = Pair("What sails?", "a ship", ("a ship", "a car"), "It has a sail.")
    passages = ["plain", "bad", "die", "refuse", "long " * 2000, "other"]
    judgement, engine = ask(
        [(p, pair) for p in passages], {"bad": "I think so", "other": '{"relevant":false,"accurate":true}'}, max_model_len=512
    )
    assert [verdict.status for verdict in judgement.verdicts] == [JUDGED, "unreadable", "engine_error", "engine_error", "too_long", JUDGED]
    assert judgement.verdicts[0] == (JUDGED, True, False) and judgement.verdicts[5] == (JUDGED, False, True)
    assert judgement.statuses == {"judged": 2, "unreadable": 1, "too_long": 1, "engine_error": 2}
    assert (judgement.count("relevant"), judgement.count("accurate")) == (1, 1)
    assert judgement.errors == {"refused": 1, "killed": 1}
    assert judgement.num_completion_tokens == 9 * 3
    assert all(len(group) == 1 for group in engine.groups[1:])  # after a death one at a time, until all suspects have ended
    assert engine.closed
    assert judgement.table().select("passage_id", "status", "relevant").row(5) == ("p5", "judged", False)


def test_the_judge_reads_passage_instruction_options_reasoning_and_response() -> None:
    seen = list[str]()

    class Recording(ScriptedEngine):
        def add(self, request: Request) -> None:
            seen.append(request.prompt.content[0]["content"])  # type: ignore[index]
            super().add(request)

    pair = Pair("Which sails?", "a ship", ("a ship", "a car"), "It has a sail.")
    judge = Judge(kind="server", model="any", instructions="Be strict.")
    judge_pairs([Question("p", " A ship sails.\n", pair)], judge, None, Execution(), start_engine=lambda *_: Recording({}))
    assert seen == [
        f"Be strict.\n\n{ANSWER_FORMAT}\n\nPassage:\nA ship sails.\n\nInstruction:\nWhich sails?\n- a ship\n- a car\n\nResponse:\nIt has a sail.\na ship"
    ]


def test_a_judge_behind_a_server_is_asked_there() -> None:
    async def answer(server: OpenAiServer, body: dict[str, Any]) -> web.StreamResponse:
        text = "no idea" if "second" in body["messages"][0]["content"] else GOOD
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 40, "completion_tokens": 8}})

    server = OpenAiServer(answer, model="judge")
    try:
        execution = Execution(synthesis=SynthesisExecution(servers={"judge": (server.url,)}))
        questions = [
            Question("p", "Ships sail.", Pair(f"Is this the {number} question?", "yes")) for number in ("first", "second", "third")
        ]
        judgement = judge_pairs(questions, Judge(kind="server", model="judge"), None, execution)
    finally:
        server.stop()
    assert [verdict.status for verdict in judgement.verdicts] == [JUDGED, "unreadable", JUDGED]
    assert (judgement.num_prompt_tokens, judgement.num_completion_tokens) == (120, 24)
    assert all(body["temperature"] == 0 and "accurate" in json.dumps(body["response_format"]) for body in server.bodies)


@pytest.mark.parametrize(
    "text", ["", "yes", "[]", '{"relevant": true}', '{"relevant": 1, "accurate": true}', '{"relevant":true,"accurate":true', "[" * 9999]
)
def test_what_is_not_the_json_asked_for_is_no_verdict(text: str) -> None:
    assert read_verdict(text) == Verdict("unreadable")


def test_a_judge_of_the_recipe_is_checked() -> None:
    with pytest.raises(ValueError, match="tokenizer: for kind server"):
        Judge(model="m", tokenizer="t")
    assert "judge" in CorpusQuality().hashed()


def project(root: Path, judge: dict[str, Any]) -> LightProject:
    """A project whose corpora bring their pairs; `corpus_quality` is to be judged."""
    chain = [{"context": f"A ship sails to port {n}.", "QA_list": [{"Q": f"Which port is {n}?", "A": f"port {n}"}]} for n in range(12)]
    (root / "published").mkdir()
    (root / "published" / "1.txt").write_text("\n".join(json.dumps([context]) for context in chain))
    return LightProject(
        root,
        shards="a",
        pair_sets={"imported": {"writer": {"kind": "imported", "pairs_field": "QA_list"}}},
        corpora={
            "notes": {"source": str(root / "notes" / "*.jsonl"), "id_field": "id"},
            "published": {"source": str(root / "published" / "*.txt"), "format": "jsonl", "text_field": "context"},
        },
        arms={"instruct": {"mixture": [{"component": "corpus", "pair_set": "imported"}]}},
        corpus_quality={"num_texts": 10, "judge": judge},
    )


def test_the_judge_enters_the_identity_of_the_page_and_needs_the_gpu(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, save_chatml(tmp_path / "tokenizer"), {})
    save_chatml(folder)
    light = project(tmp_path, judge={"model": str(folder)})
    (asset,) = [asset for asset in light.definitions.assets or () if dg.AssetKey(["imported", "corpus_quality"]) in asset.keys]
    assert asset.op.pool == GPU_POOL and "vllm" in asset.specs_by_key[asset.key].kinds

    def identity(**judge: Any) -> object:
        quality = CorpusQuality(num_texts=10, judge=Judge(model=str(folder), **judge))
        recipe = light.project.recipe.model_copy(update={"corpus_quality": quality})
        part, (model,) = Plan(recipe, light.project.store)._quality()
        return part, model.digest

    first = identity()
    assert first == identity() != identity(instructions="Be strict.")
    moved = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(moved)
    assert identity() == first
    (moved / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert identity() != first


ANSWER = ['{"relevant":true,"accurate":', "false", "}"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_model_judges_in_the_graph(tmp_path: Path) -> None:
    """A tiny chat model on real vLLM, in a worker: bound to the schema it spells one verdict, whatever it reads."""
    folder = tmp_path / "model"
    tokenizer = save_chatml(tmp_path / "tokenizer")
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ANSWER])
    spelled = [index for token in (*ANSWER, "<|im_end|>") if (index := tokenizer.token_to_id(token)) is not None]
    ids = [tokenizer.encode("\n").ids[-1], *spelled]
    save_model(folder, tokenizer, dict(itertools.pairwise(ids)), max_position_embeddings=4096)
    save_chatml(folder)
    tokenizer.save(str(folder / "tokenizer.json"))

    light = project(tmp_path, judge={"model": str(folder), "dtype": "float32", "max_model_len": 2048})
    tags = range_tags("notes--a", "published--1")
    assert light.run("shards", *CORPUS, "imported/instruction_pairs", "imported/augmented_corpus", tags=tags).success
    assert light.run("report", "imported/corpus_quality").success
    artifact = light.project.plan().current("imported/corpus_quality")
    assert artifact.manifest.recipe["corpus_quality"]["judge"]["model"].startswith("sha256:")
    assert [item.asset for item in artifact.manifest.inputs if item.asset.startswith("source:")] == [f"source:{folder}"]
    verdicts = pl.read_parquet(artifact.file("verdicts.parquet"))
    assert verdicts.select("status", "relevant", "accurate").unique().rows() == [("judged", True, False)]
    metrics = artifact.manifest.statistics["metrics"]
    assert verdicts.height == 10 and artifact.manifest.statistics["num_judged"]["judged"] == 10
    assert (metrics["judged_relevant"], metrics["judged_accurate"], metrics["judge_completion_tokens"]) == (1, 0, 10 * 4)
    page = artifact.file("quality.html").read_text()
    assert "72.2\u2013100.0 %" in page and str(tmp_path) not in page
    again = light.run("report", "imported/corpus_quality")
    (event,) = again.asset_materializations_for_node("imported__corpus_quality")
    assert event.metadata["reused"].value is True
