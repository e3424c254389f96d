"""Worker of `instruction_synthesizer`: a model tuned to write instruction-response pairs about a passage."""

import json
from pathlib import Path
from typing import Any

from instpt_assets.mixture.tokenizer import FILES as TOKENIZER_FILES
from instpt_assets.mixture.tokenizer import add_markers, copy_tokenizer, train_tokenizer
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.synthesis import Synthesizer
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.training.base_models import WEIGHT_FILES, planned_base_model
from instpt_assets.workers.cards import model_card
from instpt_assets.workers.runtime import Report
from instpt_assets.workers.training import run_training_worker, state_folder, state_url

SEED = 0


def make(spec: Spec, inputs: Inputs, execution: Execution, out: Path, progress: Report) -> dict[str, Any]:
    """Tune the synthesizer: the base model with its tokenizer, or one from a random start with a tokenizer of its own."""
    from instpt_assets.training.job import TrainingJob, TuningData
    from instpt_assets.training.launch import run

    synthesizer = Synthesizer.model_validate_json(json.dumps(spec.recipe))
    pinned = [inputs["clean_corpus", shard] for shard in synthesizer.pinned_shards]
    clean_tables = tuple(table for artifact in pinned for table in artifact.tables())
    model, base_model = synthesizer.model, None
    if isinstance(model, str):
        base_model = planned_base_model(spec, (*WEIGHT_FILES, *TOKENIZER_FILES))
        folder = base_model.folder()
        model, tokenizer = str(folder), copy_tokenizer(folder, out=out)
    else:
        tokenizer = _train_tokenizer(synthesizer, clean_tables, out)
    curriculum = synthesizer.curriculum
    job = TrainingJob(
        model=model,
        lora=synthesizer.lora,
        wired_start=curriculum is not None and curriculum.wired_start,
        seed=SEED,
        tokenizer=out / "tokenizer",
        data=TuningData(
            collection=inputs["tuning_collection", "all"].local(),
            vocab_size=tokenizer["vocab_size"],
            curriculum=curriculum,
            clean_tables=clean_tables,
        ),
        sequence_length=synthesizer.sequence_length,
        optimization=synthesizer.optimization,
        execution=execution,
        card=model_card(spec, inputs, "synthesizer", base_model=base_model),
        out=out,
        state_folder=state_folder(spec, inputs),
        state_url=state_url(spec, inputs),
    )
    return {**run(job, progress), "tokenizer": tokenizer}


def _train_tokenizer(synthesizer: Synthesizer, clean_tables: tuple[Path, ...], out: Path) -> dict[str, Any]:
    from instpt_assets.corpus.tables import read_rows
    from instpt_assets.synthesis.prompt import MARKERS

    assert synthesizer.vocab_size is not None, "a synthesizer from a shape has vocab_size"
    texts = (row["text"] for row in read_rows(clean_tables, ["text"]))
    statistics = train_tokenizer(texts, synthesizer.vocab_size - len(MARKERS), out=out)
    add_markers(out / "tokenizer", MARKERS)
    return statistics


if __name__ == "__main__":
    run_training_worker(make)
