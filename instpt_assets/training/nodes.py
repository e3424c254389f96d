"""Several nodes: how they come together for a training, and how it ends on all of them when it ends on one.

The run's node opens a store (torch's TCPStore) at the rendezvous and puts the job there. Each other node (`training.join`) takes a number and
the job, looks whether it sees the job's files, and starts its share of the processes through torchrun, as the run's node does its own. From
then on every node gives a sign of life in the store. A node that fails says why; then, or when its signs stay away, the run's node ends its
processes and closes the store; the store's end, in turn, ends the processes of the others.

torchrun gets the nodes' numbers (its static rendezvous), so that the process of rank 0, which writes and reports, is the run's own.
"""

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch.distributed as dist

from instpt_assets.errors import UserError
from instpt_assets.recipe.base import Part
from instpt_assets.training.job import TrainingJob
from instpt_assets.training.monitor import Progress

_LOOK_SECONDS = 0.5
_TELL_SECONDS = 10.0
_SILENT_SECONDS = 30.0
_SEE_SECONDS = 30.0  # a shared file system may show a new file late
_REPORT_SECONDS = 5.0
_TIMEOUT = timedelta(seconds=20)

_ID, _TRAINING, _ARRIVED, _READY, _OVER, _LEFT = "id", "training", "arrived", "ready", "over", "left"


class NodesFailed(UserError):
    """The nodes of a training did not come together; the message says why."""


class NodesTraining(Part):
    """What the run's node tells the others."""

    id: str
    """Of this one attempt."""
    port: int
    """Where torchrun's processes find each other, at the host of the rendezvous."""
    versions: dict[str, str]
    """Of the libraries whose releases must agree."""
    paths: tuple[Path, ...]
    """What of the job's paths is there on the run's node, and must be on all."""
    job: TrainingJob
    """The job, the same on all nodes."""


class Node:
    """One node's part in a training over several.

    Args:
        store: at the rendezvous.
        host: of the rendezvous.
        number: of this node; the run's is 0.
        training: what is to be done.
    """

    def __init__(self, store: dist.Store, host: str, number: int, training: NodesTraining) -> None:
        self.training, self.number = training, number
        self._store, self._host = store, host

    @property
    def num_nodes(self) -> int:
        """Nodes of the training."""
        return self.training.job.execution.training.num_nodes

    @property
    def torchrun(self) -> list[str]:
        """What torchrun must know to start this node's share of the processes."""
        return [
            *("--nnodes", str(self.num_nodes), "--node-rank", str(self.number), "--rdzv-id", self.training.id),
            *("--master-addr", self._host, "--master-port", str(self.training.port)),
        ]

    def sign(self) -> None:
        """Give a sign of life."""
        self._store.add(f"sign/{self.number}", 1)

    def fail(self, reason: str) -> None:
        """Tell the run's node why this one cannot go on."""
        self._store.set(f"failed/{self.number}", f"node {socket.gethostname()}: {reason}")


class RunsNode(Node):
    """The run's node, a context: waits until the others are ready, and ends the training for all of them.

    Args:
        job: with several nodes and a rendezvous.
        progress: told for whom it waits.

    Raises:
        NodesFailed: the rendezvous is taken; or, on entering, a node cannot take part, or too few came in time.
    """

    def __init__(self, job: TrainingJob, progress: Progress) -> None:
        execution = job.execution.training
        assert execution.rendezvous is not None, "several nodes have a rendezvous"
        host, _, port = execution.rendezvous.rpartition(":")
        try:
            store = dist.TCPStore(host, int(port), is_master=True, wait_for_workers=False, timeout=_TIMEOUT)
        except dist.DistError as error:
            raise NodesFailed(
                f"training.rendezvous {execution.rendezvous}: the run cannot open it ({str(error).splitlines()[0]}); it must be a free port of "
                "the machine on which the run's workers are started"
            ) from error
        if job.state_folder is not None:
            job.state_folder.mkdir(parents=True, exist_ok=True)
        paths = tuple(path for path in _paths(job.model_dump()) if path.exists())
        training = NodesTraining(id=uuid.uuid4().hex, port=_free_port(), versions=_versions(), paths=paths, job=job)
        super().__init__(store, host, 0, training)
        self._progress = progress
        self._signs: dict[int, tuple[int, float]] = {}
        store.set(_TRAINING, training.model_dump_json())
        store.set(_ID, training.id)

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._end()

    def _wait(self) -> None:
        execution = self.training.job.execution.training
        rendezvous, seconds = execution.rendezvous, 60 * execution.rendezvous_minutes
        begun, told = time.monotonic(), float("-inf")
        while (ready := self._store.add(_READY, 0)) < self.num_nodes - 1:
            for number in range(1, self._store.add(_ARRIVED, 0) + 1):
                if reason := self._failure(number):
                    raise NodesFailed(reason)
            missing = f"{self.num_nodes - 1 - ready} of {self.num_nodes} nodes are missing at {rendezvous}"
            if time.monotonic() - begun > seconds:
                raise NodesFailed(f"{missing} after {seconds / 60:g} minutes: run `{_command(rendezvous)}` on each of the other nodes")
            if time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                self._progress({"kind": "progress", "stage": f"waiting: {missing} (`{_command(rendezvous)}` there)"})
            time.sleep(_LOOK_SECONDS)

    def _end(self) -> None:
        self._store.set(_OVER, "")
        deadline = time.monotonic() + _REPORT_SECONDS
        while self._store.add(_LEFT, 0) < self._store.add(_READY, 0) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        del self._store  # with it the port is free for the next training

    def look(self) -> str | None:
        """Why the training cannot go on, if another node is lost."""
        for number in range(1, self.num_nodes):
            if reason := self._failure(number):
                return reason
            signs, now = self._store.add(f"sign/{number}", 0), time.monotonic()
            before, since = self._signs.get(number, (-1, now))
            if signs != before:
                self._signs[number] = signs, now
            elif now - since > _SILENT_SECONDS:
                return f"node {self._name(number)} has given no sign of life for {_SILENT_SECONDS:.0f} s"
        return None

    def reports(self) -> list[str]:
        """Why other nodes failed; called when this one has, for they may know the cause."""
        deadline = time.monotonic() + _REPORT_SECONDS
        while time.monotonic() < deadline:
            found = [reason for number in range(1, self.num_nodes) if (reason := self._failure(number))]
            if found:
                return found
            time.sleep(_LOOK_SECONDS)
        return []

    def _failure(self, number: int) -> str | None:
        key = f"failed/{number}"
        return self._store.get(key).decode() if self._store.check([key]) else None

    def _name(self, number: int) -> str:
        return self._store.get(f"name/{number}").decode()


class JoinedNode(Node):
    """Another node, from when it has joined."""

    def look(self) -> str | None:
        """Why its processes must end, if the training has ended elsewhere; gives a sign of life."""
        try:
            self.sign()
            return "the run has ended" if self._store.check([_OVER]) else None
        except dist.DistError:
            return "the run is lost"

    def leave(self) -> None:
        """Let the run's node close the store."""
        with suppress(dist.DistError):
            self._store.add(_LEFT, 1)


class Meeting:
    """A training that waits for nodes at a rendezvous, seen from a node that could join it.

    Args:
        rendezvous: host and port.

    Raises:
        OSError: nobody is there, or the rendezvous ended before it began.
        DistError: likewise.

    Attributes:
        id: tells this attempt from others.
    """

    def __init__(self, rendezvous: str) -> None:
        self._host, _, port = rendezvous.rpartition(":")
        # TCPStore would try, and complain, for as long as its timeout.
        with closing(socket.create_connection((self._host, int(port)), timeout=5)):
            pass
        self._store = dist.TCPStore(self._host, int(port), is_master=False, timeout=_TIMEOUT)
        self.id: str = self._store.get(_ID).decode()

    def join(self) -> JoinedNode | None:
        """Take part; None if the training has its nodes already.

        Raises:
            NodesFailed: this node cannot, and the run has been told why.
        """
        number = self._store.add(_ARRIVED, 1)
        self._store.set(f"name/{number}", socket.gethostname())
        try:
            training = NodesTraining.model_validate_json(self._store.get(_TRAINING).decode())
            if number >= training.job.execution.training.num_nodes:
                return None
            _check(training)
        except ValueError as error:
            reason = f"node {socket.gethostname()}: {error}"
            self._store.set(f"failed/{number}", reason)
            raise NodesFailed(reason) from error
        node = JoinedNode(self._store, self._host, number, training)
        node.sign()
        self._store.add(_READY, 1)
        return node


def _check(training: NodesTraining) -> None:
    """That this node can do what the run's node does: the same libraries, and the same files at the same places."""
    for name, wanted in training.versions.items():
        if version(name) != wanted:
            raise ValueError(f"it has {name} {version(name)}, the run {wanted}: install the same release on all nodes")
    deadline = time.monotonic() + _SEE_SECONDS
    missing = list(training.paths)
    while missing := [path for path in missing if not path.exists()]:
        if time.monotonic() > deadline:
            raise ValueError(
                f"it does not see {missing[0]}: all nodes need the run's files at the same paths, so the store, or the cache of one on S3 "
                "(INSTPT_CACHE), and a base model's folder must lie on a file system that they share"
            )
        time.sleep(_LOOK_SECONDS)


def _paths(value: Any) -> Iterator[Path]:
    """Every path in a job; a model's name is one where it is absolute."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, str) and value.startswith("/"):
        yield Path(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _paths(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _paths(part)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers")}


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _command(rendezvous: str | None) -> str:
    return f"python -m instpt_assets.training.join {rendezvous}"
