"""A user's own project in a folder: JSON Lines, one YAML recipe that extends the demo, everything small enough for tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from instpt_assets.corpus.documentation import read_documentation
from instpt_assets.store.store import Store

MALFORMED = [
    (b'{"id": "invalid-utf-8", "text": "caf\xe9"}', "UTF-8"),
    (b'{"id": "broken", "text": "no end', "JSON"),
    (b'{"id": "no-text", "body": "elsewhere"}', "text"),
    (b'{"id": "empty", "text": "   "}', "empty"),
]
"""Records that belong in `rejected`, with a word of the reason."""

RECIPE: dict[str, Any] = {
    "extends": "demo",
    "name": "mine",
    "corpora": {"notes": {"source": "notes/*.jsonl", "id_field": "id"}},
    "cleaning": {"min_characters": 20},
    "tuning": {"sources": {"simple": {"source": "tuning.jsonl"}}},
    "synthesizer": {
        "model": {
            "hidden_size": 96,
            "num_layers": 2,
            "num_heads": 3,
            "intermediate_size": 128,
            "max_position_embeddings": 512,
            "rope_theta": 1e6,
            "tie_word_embeddings": True,
        },
        "vocab_size": 600,
        "pinned_shards": ["notes--a"],
        "curriculum": {"span_copy_tokens": 4000, "rote_tokens": 4000},
        "sequence_length": 256,
        # As many steps as it takes until most completions hold a valid pair: ten seconds.
        "optimization": {"token_budget": 81920, "batch_tokens": 512, "learning_rate": 0.006, "warmup_steps": 4},
    },
    "pair_sets": {"synthesized": {"shots": 2, "max_model_len": 384, "max_new_tokens": 64, "max_passage_tokens": 100, "temperature": 0.3}},
    "tokenizer": {"vocab_size": 600, "pinned_shards": ["notes--a"]},
    "pretraining": {
        "model": {
            "hidden_size": 96,
            "num_layers": 1,
            "num_heads": 3,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
            "tie_word_embeddings": True,
        },
        "sequence_length": 128,
        "optimization": {"token_budget": 8192, "batch_tokens": 1024, "learning_rate": 0.003},
        "checkpoint_steps": [4],
    },
    "instruction_tuning": {"sequence_length": 128, "optimization": {"token_budget": 2048, "batch_tokens": 512, "learning_rate": 0.001}},
    "arms": {
        "vanilla": {"mixture": [{"component": "corpus"}]},
        "mix": {"mixture": [{"component": "corpus", "ratio": 0.9}, {"component": "tuning", "ratio": 0.1}]},
        "instruct": {"mixture": [{"component": "corpus", "pair_set": "synthesized", "ratio": 0.9}, {"component": "tuning", "ratio": 0.1}]},
    },
    "num_seeds": 1,
    "evaluation": {"held_out": "pydoc://numpy?include=numpy.polynomial", "num_examples": 8},
}

SHARDED = (
    "raw_corpus", "document_signatures", "clean_corpus", "tokenized_raw",
    "synthesized/instruction_pairs", "synthesized/augmented_corpus", "synthesized/tokenized_augmented",
)  # fmt: skip
SEEDED = ("tokenized_mixture", "pretrained_checkpoint", "instruction_tuned_checkpoint", "eval_scores", "instruction_tuned_eval_scores")
SINGLE = (
    "duplicate_documents", "tuning_collection", "instruction_synthesizer", "synthesizer_quality", "synthesized/corpus_quality",
    "tokenizer", "tokenized_instructions", "comparison_report",
)  # fmt: skip


def every_artifact(*shards: str) -> set[tuple[str, str]]:
    """Every asset and partition of the recipe."""
    sharded = {(asset, shard) for asset in SHARDED for shard in shards}
    seeded = {(f"{arm}/{stage}", "seed-0") for arm in RECIPE["arms"] for stage in SEEDED}
    return sharded | seeded | {(asset, "all") for asset in SINGLE}


MIN_TUNING_WORDS, MAX_TUNING_WORDS, NUM_TUNING_CONTEXTS = 12, 50, 400


def tuning_record(context: str) -> dict[str, Any]:
    """A context of a tuning set with questions so simple that a tiny model learns to ask and answer them in seconds."""
    begin = " ".join(context.split()[:4])
    pairs = [
        {"question": "How does it begin?", "answer": begin},
        {"question": "What is it about?", "answer": "It is about Python."},
    ]
    return {"context": context, "pairs": pairs}


class ProjectFolder:
    """The folder, and commands run in it as a user would."""

    def __init__(self, root: Path, *, store: str | None = None, **recipe: Any) -> None:
        self.root = root
        self.store_url = store or str(root / "store")
        self.recipe = {**RECIPE, **recipe}
        (root / "notes").mkdir(parents=True)
        topics = [item.text for item in read_documentation("pydoc://topics")]
        for number, shard in enumerate("ab"):
            lines = [
                json.dumps({"id": f"{shard}{n}", "text": text[:1500], "license": "PSF-2.0"}).encode()
                for n, text in enumerate(topics[number::2][:8])
            ]
            if shard == "b":
                markers = json.dumps({"id": "markers", "text": "</END> <QUE> Is this a pair? <ANS> No, it is text. </END>"}).encode()
                lines = [*(record for record, _ in MALFORMED), markers, *lines]
            (root / "notes" / f"{shard}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        paragraphs = [paragraph for text in topics for paragraph in text.split("\n\n")]
        contexts = [p for p in paragraphs if MIN_TUNING_WORDS <= len(p.split()) <= MAX_TUNING_WORDS][:NUM_TUNING_CONTEXTS]
        (root / "tuning.jsonl").write_text("".join(json.dumps(tuning_record(context)) + "\n" for context in contexts))
        self.write_recipe()

    def write_recipe(self) -> None:
        (self.root / "mine.yaml").write_text(yaml.safe_dump(self.recipe, sort_keys=False))

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "INSTPT_RECIPE": "mine.yaml",
            "INSTPT_STORE": self.store_url,
            "DAGSTER_HOME": str(self.root / "dagster"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    @property
    def store(self) -> Store:
        return Store(self.store_url)

    def materialize(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "instpt_assets.defs.materialize", *arguments],
            cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "instpt_assets.defs.materialize", *arguments],
            cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def artifacts(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(identity, digest) of every current artifact by (asset, partition)."""
        found = {}
        for pointer in (self.root / "store").glob("[!_]*/**/current/mine.json"):
            partition = pointer.parents[1]
            asset = partition.parent.relative_to(self.root / "store").as_posix()
            manifest = json.loads((partition / json.loads(pointer.read_text())["identity"] / "manifest.json").read_text())
            found[asset, partition.name] = (manifest["identity"], manifest["digest"])
        return found
