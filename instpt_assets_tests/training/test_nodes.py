"""Trainings over several nodes: two of them on this machine, each with a torchrun of its own."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from instpt_assets.mixture.flat_sequences import write_sequences
from instpt_assets.recipe.execution import Execution, TrainingExecution
from instpt_assets.recipe.lora import Lora
from instpt_assets.training.job import FlatData, TrainingJob
from instpt_assets.training.launch import TrainingFailed, run
from instpt_assets.training.log import read_log
from instpt_assets.training.model import build_model, write_checkpoint
from instpt_assets.training.nodes import Meeting, NodesFailed, RunsNode
from instpt_assets_tests.training.tiny import LENGTH, SHAPE, VOCAB_SIZE, CountingSource, optimization

STEPS = 150


def a_job(folder: Path, name: str, **execution: Any) -> TrainingJob:
    """Adapters on a base model, trained long enough to be interrupted."""
    if not (folder / "data").exists():
        write_sequences(CountingSource(STEPS * 2), folder / "data", vocab_size=VOCAB_SIZE)
        model = build_model(SHAPE, VOCAB_SIZE, seed=5, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        write_checkpoint(model, model.state_dict(), dtype=torch.float32, tokenizer=None, folder=folder / "base")
        (folder / "tokenizer").mkdir()
    (folder / name).mkdir()
    return TrainingJob(
        model=str(folder / "base"),
        lora=Lora(rank=4),
        seed=1,
        tokenizer=folder / "tokenizer",
        data=FlatData(folder=folder / "data", held_out=None),
        sequence_length=LENGTH,
        optimization=optimization(token_budget=STEPS * 2 * LENGTH, batch_tokens=2 * LENGTH, learning_rate=0.001),
        execution=Execution(num_threads=1, training=TrainingExecution(micro_batch_tokens=2 * LENGTH, save_seconds=0.0, **execution)),
        out=folder / name,
        state_folder=folder / f"{name}-state" if execution else None,
    )


@pytest.fixture
def rendezvous() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def joiner(rendezvous: str) -> Iterator[psutil.Process]:
    """The other node's command."""
    process = psutil.Popen([sys.executable, "-m", "instpt_assets.training.join", rendezvous], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()


def ranks(joiner: psutil.Process) -> list[psutil.Process]:
    """The processes that train there."""
    return [agents_child for agent in joiner.children() for agents_child in agent.children()]


def ends(processes: list[psutil.Process], seconds: float = 30.0) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def meet(rendezvous: str) -> Meeting:
    """The training there, as soon as there is one."""
    while True:
        try:
            return Meeting(rendezvous)
        except OSError:
            time.sleep(0.05)


@pytest.mark.slow
def test_two_nodes_train_as_one_process_and_a_lost_node_costs_a_rerun(tmp_path: Path, rendezvous: str, joiner: psutil.Process) -> None:
    run(a_job(tmp_path, "one"), lambda _: None)
    job = a_job(tmp_path, "two", num_nodes=2, rendezvous=rendezvous)

    def kill_when_states_are_saved() -> None:
        while not list((tmp_path / "two-state").glob("step-*")):
            time.sleep(0.05)
        killed.extend(ranks(joiner))
        killed[0].kill()

    killed: list[psutil.Process] = []
    killer = threading.Thread(target=kill_when_states_are_saved)
    killer.start()
    with pytest.raises(TrainingFailed, match=rf"node {socket.gethostname()}: torchrun ended with status 1"):
        run(job, lambda _: None)
    killer.join()
    assert len(killed) == 1 and not psutil.Process().children(recursive=True)[1:], "only the joiner goes on"

    # It takes part in the rerun, too.
    statistics = run(job, lambda _: None)
    assert statistics["num_processes"] == 2
    assert 0 < statistics["resumed_from_step"] < STEPS
    one, two = ([line.loss for line in read_log(tmp_path / name)] for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-4) and sum(one[-20:]) < sum(one[:20])


@pytest.mark.slow
def test_nothing_of_a_node_outlives_its_command(tmp_path: Path, rendezvous: str, joiner: psutil.Process) -> None:
    job = a_job(tmp_path, "two", num_nodes=2, rendezvous=rendezvous)
    left: list[psutil.Process] = []

    def kill_the_command() -> None:
        while not list((tmp_path / "two-state").glob("step-*")):
            time.sleep(0.05)
        left.extend(joiner.children(recursive=True))
        joiner.kill()

    killer = threading.Thread(target=kill_the_command)
    killer.start()
    with pytest.raises(TrainingFailed):
        run(job, lambda _: None)
    killer.join()
    assert left and ends(left)


def test_a_node_that_lacks_a_file_says_which_and_too_few_nodes_are_told_for(tmp_path: Path, rendezvous: str) -> None:
    job = a_job(tmp_path, "two", num_nodes=2, rendezvous=rendezvous, rendezvous_minutes=0.1)
    answers: list[Exception | None] = []

    def join_without_the_data() -> None:
        meeting = meet(rendezvous)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        try:
            meeting.join()
        except NodesFailed as error:
            answers.append(error)
        (tmp_path / "elsewhere").rename(tmp_path / "data")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("instpt_assets.training.nodes._SEE_SECONDS", 0.5)
        other = threading.Thread(target=join_without_the_data)
        other.start()
        with pytest.raises(NodesFailed, match=rf"node {socket.gethostname()}: it does not see {tmp_path}/data: all nodes need") as failure:
            run(job, lambda _: None)
        other.join()
    assert str(answers[0]) == str(failure.value)

    told: list[Any] = []
    (tmp_path / "alone").mkdir()
    patience = job.execution.training.model_copy(update={"rendezvous_minutes": 0.01})
    alone = job.model_copy(update={"execution": job.execution.model_copy(update={"training": patience})})
    with pytest.raises(
        NodesFailed, match=rf"1 of 2 nodes are missing at {rendezvous} after 0.01 minutes: run `python -m .*join {rendezvous}`"
    ):
        run(alone, told.append)
    assert "1 of 2 nodes are missing" in told[0]["stage"]


def test_a_node_that_gives_no_sign_of_life_is_given_up(tmp_path: Path, rendezvous: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instpt_assets.training.nodes._SILENT_SECONDS", 0.3)
    joined: list[Any] = []
    thread = threading.Thread(target=lambda: joined.append(meet(rendezvous).join()))
    thread.start()
    with RunsNode(a_job(tmp_path, "two", num_nodes=2, rendezvous=rendezvous), lambda _: None) as node:
        thread.join()
        assert (node.look(), joined[0].look()) == (None, None)
        time.sleep(0.2)
        assert (joined[0].look(), node.look()) == (None, None)
        time.sleep(0.4)
        assert node.look() == f"node {socket.gethostname()} has given no sign of life for 0 s"
        joined[0].leave()
    assert joined[0].look() == "the run is lost"


def test_a_rendezvous_that_is_taken_is_named(tmp_path: Path, rendezvous: str) -> None:
    host, port = rendezvous.split(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        with pytest.raises(NodesFailed, match=f"training.rendezvous {rendezvous}: the run cannot open it .*free port"):
            run(a_job(tmp_path, "two", num_nodes=2, rendezvous=rendezvous), lambda _: None)


def test_several_nodes_need_a_rendezvous() -> None:
    with pytest.raises(ValueError, match="num_nodes 2 needs rendezvous"):
        TrainingExecution(num_nodes=2)
    with pytest.raises(ValueError, match="rendezvous"):
        TrainingExecution(num_nodes=2, rendezvous="10.0.0.1")
