"""`make trace`: every token of a training sequence back to its passages, documents and files, and the way there again; also on S3."""

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from light_project import CORPUS, LightProject
from tokenizers import Tokenizer

from instpt_assets.corpus.documentation import read_documentation
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.project import Project
from instpt_assets.defs.shards import range_tags
from instpt_assets.defs.trace import trace
from instpt_assets.mixture.mixture_sequences import MixtureSequences
from instpt_assets.mixture.tracing import TraceError
from instpt_assets.store.store import Store, resolve

HELD_OUT = 1


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> LightProject:
    """Two shards of documents, every second one augmented with pairs that came along, packed by best fit."""
    root = tmp_path_factory.mktemp("project")
    folder = root / "published"
    folder.mkdir()
    texts = [item.text[:900] for item in read_documentation("pydoc://topics")][20:]
    for name, own in (("a", texts[:6]), ("b", texts[6:12])):
        records = [
            {"id": f"{name}{n}", "text": text, "pairs": [{"question": "What is said?", "answer": text.split()[n]}]}
            for n, text in enumerate(own)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pretraining = {
        "model": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 64, "max_position_embeddings": 256},
        "sequence_length": 128,
        "packing": "best_fit",
        "held_out_documents": HELD_OUT,
        "optimization": {"token_budget": 4096, "batch_tokens": 512, "learning_rate": 0.001},
    }
    light = LightProject(
        root,
        shards="",
        corpora={"published": {"source": str(folder / "*.jsonl"), "id_field": "id"}},
        tokenizer={"vocab_size": 400, "pinned_shards": ["published--a"]},
        pair_sets={"imported": {"writer": {"kind": "imported"}, "fraction": 0.5}},
        pretraining=pretraining,
        arms={
            "instruct": {"mixture": [{"component": "corpus", "pair_set": "imported"}]},
            "vanilla": {"mixture": [{"component": "corpus"}]},
        },
    )
    tags = range_tags("published--a", "published--b")
    assert light.run("shards", *CORPUS, tags=tags).success
    assert light.run("synthesizer", "tokenizer").success
    made = ["imported/instruction_pairs", "imported/augmented_corpus", "imported/tokenized_augmented", "tokenized_raw"]
    assert light.run("shards", *made, tags=tags).success
    assert light.run("seeds", "instruct/tokenized_mixture", tags={"dagster/partition": "seed-0"}).success
    return light


def traced(project: Project, **what: Any) -> Any:
    return json.loads(trace(project, "instruct", as_json=True, **what))


def sequences_of(light: LightProject) -> tuple[MixtureSequences, Tokenizer]:
    store = light.project.store
    mixture = light.project.plan().current("instruct/tokenized_mixture", "seed-0")
    artifacts = resolve(store, mixture.manifest.inputs)
    tokenizer = light.project.plan().current("tokenizer").local() / "tokenizer/tokenizer.json"
    return MixtureSequences(mixture.local(), {source: artifact.local() for source, artifact in artifacts.items()}), Tokenizer.from_file(
        str(tokenizer)
    )


def test_every_token_is_traced_to_its_row_passages_documents_and_file(light: LightProject) -> None:
    source, tokenizer = sequences_of(light)
    plan = light.project.plan()
    texts = {
        row["text_id"]: row
        for key in plan.registered_shards
        for row in pl.read_parquet(plan.current("imported/augmented_corpus", key).tables()).to_dicts()
    }
    seen: set[str] = set()
    for step in range(1, 9):
        for sequence in traced(light.project, step=step):
            number = sequence["sequence"]
            assert number // 4 + 1 == sequence["step"] == step
            (whole,) = traced(light.project, sequence=number, tokens="0-127")
            ids, labels, starts = source.sequence(number)
            ends = [*starts[1:].tolist(), 128]
            for piece, begin, end in zip(whole["pieces"], starts.tolist(), ends, strict=False):
                assert (piece["position"], piece["num_tokens"]) == (begin, end - begin)
                assert piece["text"] == tokenizer.decode(ids[begin:end].tolist(), skip_special_tokens=False)
                for document in piece["documents"]:
                    assert document["source"].endswith(f"/published/{document['document_id'].split('/')[1][0]}.jsonl")
                if piece["asset"] == "tokenized_raw":
                    assert [document["document_id"] for document in piece["documents"]] == [piece["row_id"]]
                    assert piece["layout"] is None and piece["passages"] == []
                else:
                    assert piece["layout"] == texts[piece["row_id"]]["layout"]
                    assert [passage["passage_id"] for passage in piece["passages"]] == texts[piece["row_id"]]["passage_ids"]
                    assert all((passage["status"], passage["num_pairs"]) == ("ok", 1) for passage in piece["passages"])
                seen.add(piece["asset"])
            assert sequence["num_padding"] == 128 - sum(piece["num_tokens"] for piece in sequence["pieces"])
            assert sequence["num_padding"] == int((labels < 0).sum())
    assert seen == {"tokenized_raw", "imported/tokenized_augmented"}


def test_a_document_is_found_in_exactly_the_sequences_that_hold_it(light: LightProject) -> None:
    stands: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for step in range(1, 9):
        for sequence in traced(light.project, step=step):
            for piece in sequence["pieces"]:
                for document in piece["documents"]:
                    stands[document["document_id"]].add((sequence["sequence"], piece["begin"]))
    assert len(stands) > 4
    for document, places in stands.items():
        found = traced(light.project, document=document)
        assert {(each["sequence"], each["begin"]) for each in found} == places
        assert [each["sequence"] for each in found] == sorted(each["sequence"] for each in found)
        assert all(each["step"] == each["sequence"] // 4 + 1 for each in found)
    untold = []
    for document in {f"published/{name}{n}" for name in "ab" for n in range(6)} - set(stands):
        with pytest.raises(TraceError) as error:
            trace(light.project, "instruct", document=document)
        untold.append(str(error.value))
    assert sum("is held out" in text for text in untold) == HELD_OUT


def test_what_a_person_reads_names_everything(light: LightProject) -> None:
    told = trace(light.project, "instruct", step=1)
    for part in ("sequence 3 (step 1): 128 tokens", "tokenized_raw published--", "layout ", "shot 0 of chain ", "ok, 1 pairs", "“"):
        assert part in told
    document = traced(light.project, sequence=0)[0]["pieces"][0]["documents"][0]["document_id"]
    assert f"document {document} stands" in trace(light.project, "instruct", document=document)


def test_a_store_on_s3_is_traced_without_fetching_texts(light: LightProject, s3_store: Store, tmp_path: Path) -> None:
    s3_store.fs.put(str(light.root / "store"), s3_store.root, recursive=True)
    remote = replace(light.project, store_url=s3_store.url)
    assert traced(remote, sequence=2) == traced(light.project, sequence=2)
    document = traced(light.project, sequence=2)[0]["pieces"][0]["documents"][0]["document_id"]
    assert traced(remote, document=document) == traced(light.project, document=document)
    cached = {path.relative_to(tmp_path / "cache").parts[0] for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert not cached & {"clean_corpus", "raw_corpus"}


@pytest.mark.parametrize(
    ("arm", "what", "error", "message"),
    [
        ("nowhere", {"sequence": 0}, ValueError, r"no arm 'nowhere' \(it has: instruct, vanilla\)"),
        ("instruct", {}, ValueError, "name one of SEQUENCE"),
        ("instruct", {"sequence": 0, "step": 1}, ValueError, "name one of SEQUENCE"),
        ("instruct", {"sequence": 32}, TraceError, "no sequence 32: this mixture has sequences 0 to 31"),
        ("instruct", {"step": 9}, TraceError, "no step 9: this mixture has steps 1 to 8"),
        ("instruct", {"sequence": 0, "tokens": "100-128"}, TraceError, "a sequence has tokens 0 to 127"),
        ("instruct", {"sequence": 0, "tokens": "all"}, ValueError, "no range of tokens"),
        ("instruct", {"sequence": 0, "seed": 1}, ValueError, "has seeds 0 to 0"),
        ("instruct", {"document": "published/z9"}, TraceError, "hold a document 'published/z9'"),
        ("vanilla", {"sequence": 0}, NotMaterialized, "vanilla/tokenized_mixture.*make materialize SELECT"),
    ],
)
def test_what_is_not_there_is_told(light: LightProject, arm: str, what: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trace(light.project, arm, **what)


def test_upstream_artifacts_that_are_gone_are_left_open(light: LightProject, tmp_path: Path) -> None:
    shutil.copytree(light.root / "store", tmp_path / "store")
    for asset in ("clean_corpus", "imported/instruction_pairs", "tokenizer"):
        shutil.rmtree(tmp_path / "store" / asset)
    (sequence,) = traced(replace(light.project, store_url=str(tmp_path / "store")), sequence=0)
    (whole,) = traced(light.project, sequence=0)
    assert [piece["row_id"] for piece in sequence["pieces"]] == [piece["row_id"] for piece in whole["pieces"]]
    assert all(piece["text"] is None for piece in sequence["pieces"])
    assert all(document["source"] is None for piece in sequence["pieces"] for document in piece["documents"])
    assert np.all([passage["status"] is None for piece in sequence["pieces"] for passage in piece["passages"]])
