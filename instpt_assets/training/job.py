"""One training as JSON: what a worker hands to the processes that do it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from transformers import PreTrainedModel
from transformers.utils import logging

from instpt_assets.mixture.flat_sequences import FlatSequences
from instpt_assets.mixture.index import HELD_OUT_BOUNDS, MixtureIndex
from instpt_assets.recipe.base import Part
from instpt_assets.recipe.execution import Execution
from instpt_assets.recipe.lora import Lora
from instpt_assets.recipe.synthesis import Curriculum
from instpt_assets.recipe.training import ModelShape, Optimization
from instpt_assets.store.sealed import SealedFolders
from instpt_assets.training.batches import SequenceSource
from instpt_assets.training.guards import memory_explained
from instpt_assets.training.lineage import Lineage, lineage_key
from instpt_assets.training.log import LOGS, read_log, read_times
from instpt_assets.training.loop import train
from instpt_assets.training.lora import add_adapters
from instpt_assets.training.model import build_for_tokenizer, is_first_process, load_model
from instpt_assets.training.model_card import Card, write_cards
from instpt_assets.training.monitor import Progress
from instpt_assets.training.plots import PLOT, plot_training


class MixtureData(Part):
    """An arm's pre-training data."""

    kind: Literal["mixture"] = "mixture"
    folder: Path
    """The mixture, an index."""
    sources: tuple[tuple[str, str, Path], ...]
    """Asset, partition and folder of each tokenized artifact that it names."""

    @property
    def by_source(self) -> dict[tuple[str, str], Path]:
        """Folder by asset and partition."""
        return {(asset, partition): folder for asset, partition, folder in self.sources}


class InstructionData(Part):
    """Single instructions, loss on the responses."""

    kind: Literal["instructions"] = "instructions"
    folder: Path
    """The tokenized instructions."""
    components: tuple[str, ...]
    """Which of them."""
    document_attention: bool = False
    """Whether attention and positions are confined to examples."""


class TuningData(Part):
    """The synthesizer's data: the curriculum's phases, then contexts with pairs, loss on the pairs."""

    kind: Literal["tuning"] = "tuning"
    collection: Path
    """The tuning collection."""
    vocab_size: int
    """Of the tokenizer, its markers not counted."""
    curriculum: Curriculum | None
    """Phases before the collection."""
    clean_tables: tuple[Path, ...]
    """Tables of the pinned clean shards, from which the curriculum's passages are cut."""


class FlatData(Part):
    """Sequences written out (`mixture.flat_sequences`), for a machine without the tables that they were made from."""

    kind: Literal["flat"] = "flat"
    folder: Path
    """The training sequences."""
    held_out: Path | None
    """Sequences held out of training, if there are any."""


class Ancestors(Part):
    """Where a training keeps its state for larger budgets, and what tells whose states are the first steps of whose."""

    folder: Path
    """Where the states of all trainings lie."""
    url: str | None
    """Where they are copied to, for other machines."""
    made_of: dict[str, str]
    """What the job itself does not hold: digests of base model and tokenizer, the code's version."""
    source_digests: tuple[tuple[str, str, str], ...]
    """Asset, partition and digest of each tokenized artifact that the mixture names."""


class TrainingJob(Part):
    """A model, its data and its training."""

    model: ModelShape | str
    """A shape to train from a random start, or a folder or hub name to continue from."""
    lora: Lora | None = None
    """Adapters that are trained on a model to continue from, in place of all its weights."""
    wired_start: bool = False
    """Whether a random start holds the induction circuit (`training.wired`)."""
    seed: int
    """Of the initial weights and of the data's order."""
    tokenizer: Path
    """A tokenizer folder."""
    data: Annotated[MixtureData | InstructionData | TuningData | FlatData, Field(discriminator="kind")]
    """What it is trained on."""
    sequence_length: int
    """Tokens a sequence."""
    optimization: Optimization
    """Steps and optimizer."""
    checkpoint_steps: tuple[int, ...] = ()
    """Steps after which a checkpoint is kept beside the last."""
    held_out_every_steps: int | None = None
    """Steps from one held-out loss to the next, where the data holds documents out; by default as `HeldOut` says."""
    execution: Execution
    """How it is computed."""
    card: Card | None = None
    """What the checkpoints' model cards tell beside the training's figures."""
    out: Path
    """Where the files go."""
    state_folder: Path | None
    """Where unfinished work is kept."""
    state_url: str | None = None
    """Where it is copied to, for a rerun on another machine."""
    ancestors: Ancestors | None = None
    """Where the state for larger budgets is kept, of a mixture only."""


def run_job(job: TrainingJob, progress: Progress) -> dict[str, Any]:
    """Train in this process (one of several under torchrun); see `train`. The process with rank 0 also draws the loss and writes the model cards.

    Returns:
        The statistics of `train`, and under `data` those of the data, where it has some.
    """
    logging.disable_progress_bar()
    source, model = open_sequences(job), _start(job)
    with memory_explained(model, job.execution.training, could_adapt=isinstance(job.model, str) and job.lora is None):
        statistics = train(
            model,
            source,
            job.optimization,
            job.execution.training,
            out=job.out,
            device=job.execution.device,
            seed=job.seed,
            tokenizer=job.tokenizer,
            checkpoint_steps=job.checkpoint_steps,
            state_folder=job.state_folder,
            state_url=job.state_url,
            save_seconds=job.execution.training.save_seconds,
            lineage=_lineage(job),
            held_out=open_held_out(job),
            held_out_every_steps=job.held_out_every_steps,
            card=job.card,
            progress=progress,
        )
    if dist.get_rank() == 0:
        lines = read_log(job.out)
        try:
            plot_training(lines, read_times(job.out / LOGS), job.out / LOGS / PLOT)
        except ImportError as error:
            progress({"kind": "progress", "note": f"no picture of the training: {error}"})
        if job.card is not None:
            write_cards(job.card, lines, job.out, num_parameters=statistics["num_parameters"])
    data = getattr(source, "statistics", {})
    return {**statistics, **({"data": data} if data else {})}


def _start(job: TrainingJob) -> PreTrainedModel:
    if isinstance(job.model, str):
        if job.lora is None:
            return load_model(job.model)
        model = load_model(job.model, getattr(torch, job.optimization.dtype))
        add_adapters(model, job.lora, seed=job.seed)
        return model
    model = build_for_tokenizer(job.model, job.tokenizer, seed=job.seed)
    if job.wired_start and is_first_process():
        from instpt_assets.training.wired import wire_induction

        wire_induction(model, seed=job.seed)
    return model


def _lineage(job: TrainingJob) -> Lineage | None:
    ancestors = job.ancestors
    if ancestors is None or not isinstance(job.data, MixtureData):
        return None
    fields = {"model", "lora", "wired_start", "seed", "sequence_length"}
    if isinstance(job.model, str):
        fields.remove("model")  # a base model is its content, wherever it lies
    attention = MixtureIndex(job.data.folder).document_attention
    settings = {**job.model_dump(mode="json", include=fields), **ancestors.made_of, "document_attention": attention}
    key = lineage_key(job.optimization, settings)
    return Lineage(
        folders=SealedFolders(ancestors.folder / key, ancestors.url and f"{ancestors.url}/{key}"),
        optimization=job.optimization,
        mixture=job.data.folder,
        source_digests={(asset, partition): digest for asset, partition, digest in ancestors.source_digests},
    )


def open_held_out(job: TrainingJob) -> SequenceSource | None:
    """Sequences that are held out of training; None: there are none."""
    if isinstance(job.data, FlatData):
        return FlatSequences(job.data.held_out) if job.data.held_out else None
    if not isinstance(job.data, MixtureData) or not (job.data.folder / HELD_OUT_BOUNDS).exists():
        return None
    from instpt_assets.mixture.mixture_sequences import MixtureSequences

    return MixtureSequences(job.data.folder, job.data.by_source, held_out=True)


def open_sequences(job: TrainingJob) -> SequenceSource:
    """The sequences that a job trains on."""
    optimization = job.optimization
    num_tokens = optimization.num_steps * optimization.batch_tokens
    match job.data:
        case FlatData(folder=folder):
            return FlatSequences(folder)
        case MixtureData() as mixture:
            from instpt_assets.mixture.mixture_sequences import MixtureSequences

            return MixtureSequences(mixture.folder, mixture.by_source)
        case InstructionData() as instructions:
            from instpt_assets.mixture.instruction_sequences import InstructionSequences

            return InstructionSequences(
                instructions.folder,
                instructions.components,
                num_sequences=num_tokens // job.sequence_length,
                seed=job.seed,
                sequence_length=job.sequence_length,
                document_attention=instructions.document_attention,
            )
        case TuningData() as data:
            from instpt_assets.corpus.tables import read_rows
            from instpt_assets.synthesis.prompt import PromptFormat
            from instpt_assets.synthesis.tuning_sequences import TuningSequences

            return TuningSequences(
                data.collection,
                PromptFormat(job.tokenizer),
                vocab_size=data.vocab_size,
                sequence_length=job.sequence_length,
                token_budget=num_tokens,
                curriculum=data.curriculum,
                texts=(row["text"] for row in read_rows(data.clean_tables, ["text"])),
                seed=job.seed,
            )
