"""A bundle trains to the same bytes as the job that it was made from, with the training room's libraries alone."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from instpt_assets.mixture.flat_sequences import LOSS, FlatSequences, write_sequences
from instpt_assets.mixture.sequences import NO_LOSS, TrainingSequence
from instpt_assets.recipe.execution import Execution, TrainingExecution
from instpt_assets.recipe.training import InstructionTuning, Pretraining
from instpt_assets.store.making import Inputs
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Store, resolve
from instpt_assets.training.bundle import BundleError, open_bundle, write_bundle
from instpt_assets.training.job import TrainingJob
from instpt_assets.training.launch import run
from instpt_assets.workers import instruction_tune, pretrain
from instpt_assets_tests.training.small_store import BUDGET, SHAPE, SmallStore, small_store

EXECUTION = Execution(num_threads=1, training=TrainingExecution(micro_batch_tokens=256))
ROOM = Path(__file__).with_name("room_alone.py")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    folder = tmp_path_factory.mktemp("small")
    return small_store(Store(str(folder / "store")), folder)


def spec_of(small: SmallStore, asset: str, inputs: list[str], recipe: dict[str, object]) -> tuple[Spec, Inputs]:
    spec = Spec(asset=asset, partition="seed-0", code_version=1, recipe={**recipe, "seed": "seed-0"}, inputs=small.inputs(inputs))
    return spec, resolve(small.store, spec.inputs)


@pytest.fixture
def job(small: SmallStore, tmp_path: Path) -> TrainingJob:
    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET)
    spec, inputs = spec_of(
        small, "vanilla/pretrained_checkpoint", ["vanilla/tokenized_mixture", "tokenizer"], {"pretraining": pretraining.hashed()}
    )
    (tmp_path / "out").mkdir()
    return pretrain.training_job(spec, inputs, EXECUTION, tmp_path / "out").model_copy(update={"state_folder": None})


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "training_log.jsonl").read_text().splitlines()]


def test_a_bundle_trains_to_the_same_bytes_with_nothing_but_the_rooms_libraries(job: TrainingJob, tmp_path: Path) -> None:
    written = write_bundle(job, tmp_path / "bundle", max_file_bytes=3000)
    files = [path for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    assert len(files) == written["num_files"] and max(path.stat().st_size for path in files) <= 3000
    run(job, lambda _: None)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            str(ROOM),
            "instpt_assets.training.bundle",
            str(tmp_path / "bundle"),
            "--out",
            str(tmp_path / "there"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "instpt_assets.training.same_tokenizer" in done.stdout, "all modules of the room are imported first"
    assert losses(tmp_path / "there") == losses(job.out) and len(losses(job.out)) == BUDGET.num_steps
    assert not list((tmp_path / "there").rglob("*.part-*"))
    name = "checkpoint/model.safetensors"
    assert (tmp_path / "there" / name).read_bytes() == (job.out / name).read_bytes()


def test_what_was_damaged_on_the_way_is_told(job: TrainingJob, tmp_path: Path) -> None:
    write_bundle(job, tmp_path / "bundle", max_file_bytes=3000)
    with pytest.raises(BundleError, match="is not empty"):
        write_bundle(job, tmp_path / "bundle", max_file_bytes=3000)
    part = next((tmp_path / "bundle/data").glob("ids.npy.part-00001"))
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(BundleError, match=r"ids\.npy has other content than was written: carry the bundle over again"):
        open_bundle(tmp_path / "bundle")
    for path in (tmp_path / "bundle/data").glob("ids.npy*"):
        path.unlink()
    with pytest.raises(BundleError, match=r"ids\.npy is missing"):
        open_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match="is no bundle"):
        open_bundle(tmp_path)


def test_a_bundle_of_an_instruction_tuning_holds_its_model_and_which_tokens_have_loss(
    small: SmallStore, job: TrainingJob, tmp_path: Path
) -> None:
    pretraining = Pretraining(model=SHAPE, sequence_length=64, optimization=BUDGET)
    recipe = {"pretraining": pretraining.hashed(), "seed": "seed-0"}
    small.train(pretrain, "vanilla/pretrained_checkpoint", ["vanilla/tokenized_mixture", "tokenizer"], recipe, "seed-0")
    tuning = InstructionTuning(sequence_length=128, optimization=BUDGET)
    inputs = ["vanilla/pretrained_checkpoint", "tokenized_instructions", "tokenizer"]
    spec, resolved = spec_of(small, "vanilla/instruction_tuned_checkpoint", inputs, {"instruction_tuning": tuning.hashed()})
    tuned = instruction_tune.training_job(spec, resolved, EXECUTION, tmp_path / "tuned")
    write_bundle(tuned, tmp_path / "bundle", max_file_bytes=50_000)
    there = open_bundle(tmp_path / "bundle", execution=Execution(device="cuda"))
    assert there.execution.device == "cuda" and there.model == str(tmp_path / "bundle/model")
    weights = "model.safetensors"
    assert (tmp_path / "bundle/model" / weights).read_bytes() == (Path(str(tuned.model)) / weights).read_bytes()
    assert (tmp_path / "bundle/data" / LOSS).exists()


class Sequences:
    """Sequences with padding, with several documents, and an id above 65,535."""

    sequence_length, document_attention, statistics = 10, True, {"padding": 3}

    def __len__(self) -> int:
        return 3

    def sequence(self, index: int) -> TrainingSequence:
        ids = np.arange(index, index + 10) + 70_000 * (index == 2)
        labels = np.where(np.arange(10) < 10 - index, ids, NO_LOSS)
        return TrainingSequence(ids, labels, np.arange(0, 10, 4 + index))

    def describe(self, index: int) -> str:
        return ""

    def __iter__(self) -> Iterator[TrainingSequence]:
        return (self.sequence(index) for index in range(len(self)))


def test_sequences_come_back_as_they_were(tmp_path: Path) -> None:
    write_sequences(Sequences(), tmp_path / "flat", vocab_size=100_000)
    flat = FlatSequences(tmp_path / "flat")
    assert (len(flat), flat.sequence_length, flat.document_attention, flat.statistics) == (3, 10, True, {"padding": 3})
    for index, expected in enumerate(Sequences()):
        for found, wanted in zip(flat.sequence(index), expected, strict=True):
            assert found.dtype == np.int64 and np.array_equal(found, wanted)
    with pytest.raises(IndexError):
        flat.sequence(3)
