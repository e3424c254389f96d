"""What goes wrong in a run is said in one line that tells what to do, and leaves the store as it was."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
from daemon import daemon
from light_project import CORPUS, WITH_PAIRS, LightProject, failure

from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import Shard
from instpt_assets.defs import corpus
from instpt_assets.defs.attributes import GPU_POOL
from instpt_assets.defs.console import console
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.dagster_private import InstanceConcurrencyContext
from instpt_assets.defs.dead_runs import PROCESS_TAG, end_dead_runs, this_process
from instpt_assets.defs.failures import failing_shards
from instpt_assets.defs.materialize import Step, execute, materialize_recipe
from instpt_assets.defs.shards import range_tags
from instpt_assets.defs.supervised import ended_by
from instpt_assets.processes import process_start

ONE = range_tags("notes--a", "notes--a")


@pytest.fixture
def light(tmp_path: Path) -> LightProject:
    return LightProject(tmp_path, shards="ab")


def damage(path: Path) -> None:
    """Other bytes of the same number."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_missing_input_is_named(light: LightProject) -> None:
    assert failure(light.run("shards", "document_signatures", tags=ONE)) == (
        "document_signatures/notes--a: raw_corpus, partition notes--a, is not materialized: materialize it first"
    )
    assert light.run("shards", *CORPUS, tags=ONE).success
    assert failure(light.run("shards", "raw_corpus", "clean_corpus", tags=range_tags("notes--b", "notes--b"))) == (
        "clean_corpus/notes--b: duplicate_documents knows no shard notes--b: materialize duplicate_documents again"
    )
    with pytest.raises(NotMaterialized, match="1 of 2 shards are not tokenized yet|2 of 2 shards are not tokenized yet"):
        light.project.plan().spec("vanilla/tokenized_mixture", "seed-0")


def test_a_damaged_input_is_named_with_what_to_delete(light: LightProject, capfd: pytest.CaptureFixture[str]) -> None:
    assert light.run("shards", "raw_corpus", tags=ONE).success
    raw = light.project.plan().current("raw_corpus", "notes--a")
    damage(raw.tables()[0])

    assert not materialize_recipe(light.project, light.instance, 'key:"document_signatures"', ["notes--a"])
    output = "".join(capfd.readouterr())
    assert f"has other content than was committed: delete {raw.root} and materialize raw_corpus again" in output
    assert "document_signatures failed: document_signatures/notes--a: " in output
    assert "Traceback" not in output and "Stack Trace" not in output


def test_a_damaged_preview_is_not_shown(light: LightProject) -> None:
    assert light.run("shards", "raw_corpus", tags=ONE).success
    raw = light.project.plan().current("raw_corpus", "notes--a")
    damage(raw.file("logs/preview.md"))
    assert f"delete {raw.root} and materialize raw_corpus again" in failure(light.run("shards", "raw_corpus", tags=ONE))


def test_of_two_runs_on_one_partition_one_commits_and_the_other_says_so(light: LightProject, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[dg.ExecuteInProcessResult] = []

    def overtaken(*arguments: object, **options: object) -> dict[str, object]:
        if not results:
            monkeypatch.setattr(corpus, "ingest", ingest)
            results.append(light.run("shards", "raw_corpus", tags=ONE))
        return ingest(*arguments, **options)

    monkeypatch.setattr(corpus, "ingest", overtaken)
    message = failure(light.run("shards", "raw_corpus", tags=ONE))
    assert results[0].success
    assert message.startswith("raw_corpus/notes--a: another run committed identity") and message.endswith("Materialize again to use it.")
    artifact = light.project.plan().current("raw_corpus", "notes--a")
    assert len(list(Path(artifact.root).iterdir())) == 2  # the manifest and the winner's files
    assert light.run("shards", "raw_corpus", tags=ONE).success


def test_a_failing_shard_stops_no_other(tmp_path: Path) -> None:
    light = LightProject(tmp_path)
    assert light.run("shards", "raw_corpus", tags=ONE).success
    light.break_shard("b")
    message = failure(light.run("shards", "raw_corpus", tags=range_tags("notes--a", "notes--c")))
    assert message.startswith("raw_corpus/notes--b: '") and "cannot be read as jsonl.gz" in message and "\n" not in message
    plan = light.project.plan()
    assert [key for key in plan.registered_shards if plan.is_current("raw_corpus", key)] == ["notes--a", "notes--c"]
    assert light.instance.get_materialized_partitions(dg.AssetKey("raw_corpus")) == {"notes--a", "notes--c"}
    assert failing_shards(plan, light.instance, plan.registered_shards) == {"notes--b"}

    light.mend_shard("b")
    assert light.run("shards", "raw_corpus", tags=range_tags("notes--a", "notes--c")).success
    assert failing_shards(plan, light.instance, plan.registered_shards) == set()


@pytest.mark.parametrize("part", ["", "-00000"])
def test_a_link_to_nothing_fails_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str], part: str) -> None:
    corpus = {"source": str(tmp_path / "notes"), **({"documents_per_shard": 9} if part else {})}
    light = LightProject(
        tmp_path, shards="ac", corpora={"notes": corpus}, tokenizer={"vocab_size": 400, "pinned_shards": [f"notes--a{part}"]}
    )
    (tmp_path / "notes" / "b.jsonl").symlink_to(tmp_path / "later.jsonl")
    assert not materialize_recipe(light.project, light.instance, 'key:"raw_corpus"', [])
    output = "".join(capfd.readouterr())
    assert "b.jsonl' cannot be read" in output and f"Failed, for the reasons above: notes--b{part}. The other shards are done." in output
    assert "Traceback" not in output
    plan = light.project.plan()
    assert [plan.is_current("raw_corpus", key) for key in plan.available_shards()] == [True, False, True]
    (tmp_path / "notes" / "a.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (tmp_path / "notes" / "a.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    plan = light.project.plan()
    assert [plan.is_current("raw_corpus", key) for key in plan.available_shards()] == [False, False, True]


def test_every_failing_shard_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = LightProject(tmp_path)
    light.break_shard("a")

    def unexpected(shard: Shard, *arguments: object, **options: object) -> dict[str, object]:
        if shard.key == "notes--b":
            raise RuntimeError("a mistake of the program")
        return ingest(shard, *arguments, **options)

    monkeypatch.setattr(corpus, "ingest", unexpected)
    first, second = failure(light.run("shards", "raw_corpus", tags=range_tags("notes--a", "notes--c"))).split("\n")
    assert first.startswith("raw_corpus/notes--a: ") and second == "raw_corpus/notes--b: RuntimeError: a mistake of the program"
    assert light.project.plan().is_current("raw_corpus", "notes--c")


def test_an_interrupted_run_shows_the_shards_that_it_had_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    light = LightProject(tmp_path)

    def interrupted(shard: Shard, *arguments: object, **options: object) -> dict[str, object]:
        if shard.key == "notes--c":
            raise KeyboardInterrupt
        return ingest(shard, *arguments, **options)

    monkeypatch.setattr(corpus, "ingest", interrupted)
    assert not light.run("shards", "raw_corpus", tags=range_tags("notes--a", "notes--c")).success
    assert light.instance.get_materialized_partitions(dg.AssetKey("raw_corpus")) == {"notes--a", "notes--b"}


def test_an_input_that_this_instance_does_not_know_is_not_taken_for_another(light: LightProject) -> None:
    assert light.run("shards", "raw_corpus", tags=range_tags("notes--a", "notes--b")).success
    light.instance.wipe_assets([dg.AssetKey("raw_corpus")])
    assert light.run("shards", "raw_corpus", tags=ONE).success
    assert light.run("shards", "document_signatures", tags=range_tags("notes--a", "notes--b")).success
    known = {}
    for shard in ("notes--a", "notes--b"):
        (record,) = light.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("document_signatures"), asset_partitions=[shard]), limit=1
        ).records
        known[shard] = record.asset_materialization.tags.get("dagster/input_data_version/raw_corpus")
    assert known == {"notes--a": light.project.plan().current("raw_corpus", "notes--a").manifest.digest, "notes--b": None}


def run_of(light: LightProject, tags: dict[str, str]) -> dg.DagsterRun:
    job = light.definitions.resolve_job_def("shards")
    run = light.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert light.instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "step").is_claimed
    return run


def test_runs_of_dead_processes_end_and_give_back_their_slots(light: LightProject) -> None:
    storage = light.instance.event_log_storage
    storage.set_concurrency_slots("gpu", 4)
    host = socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but its parent has not asked for its status
        # A process id that does not exist, one that was given to another process since, and one that is kept for a status.
        dead = [run_of(light, {PROCESS_TAG: f"{host}:{pid}:1"}) for pid in (2**22 + 1, os.getpid(), ended.pid)]
        living = run_of(light, this_process())
        end_dead_runs(light.instance)
    statuses = [light.instance.get_run_by_id(run.run_id).status for run in (*dead, living)]
    assert statuses == [*[dg.DagsterRunStatus.FAILURE] * 3, dg.DagsterRunStatus.STARTED]
    assert [slot.run_id for slot in storage.get_concurrency_info("gpu").claimed_slots] == [living.run_id]


def test_runs_of_other_machines_are_left_alone(light: LightProject) -> None:
    light.instance.event_log_storage.set_concurrency_slots("gpu", 1)
    elsewhere = run_of(light, {PROCESS_TAG: "elsewhere:1:1"})
    end_dead_runs(light.instance)
    assert light.instance.get_run_by_id(elsewhere.run_id).status == dg.DagsterRunStatus.STARTED


def test_a_canceled_run_of_a_dead_process_is_canceled(light: LightProject) -> None:
    light.instance.event_log_storage.set_concurrency_slots("gpu", 1)
    run = run_of(light, {PROCESS_TAG: f"{socket.gethostname()}:{2**22 + 1}:1"})
    light.instance.report_run_canceling(run)
    end_dead_runs(light.instance)
    assert light.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED
    assert light.instance.event_log_storage.get_concurrency_info("gpu").claimed_slots == []


def test_a_run_of_the_ui_that_was_killed_with_the_whole_of_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("INSTPT_RECIPE", "light.yaml"), ("INSTPT_STORE", "store"), ("DAGSTER_HOME", "dagster")):
        monkeypatch.setenv(name, str(tmp_path / value))
    light = LightProject(tmp_path, shards="a", **WITH_PAIRS)
    pool = light.instance.event_log_storage
    pool.set_concurrency_slots("gpu", 0)  # the run waits for its place
    with daemon(light.instance) as ticking:
        ticking.tick_schedule("nightly_synthesis", datetime.now(UTC) + timedelta(days=1))
        (launched,) = ticking.launch_queued()
        deadline = time.monotonic() + 60
        while not pool.get_concurrency_info("gpu").pending_steps:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run = light.instance.get_run_by_id(launched.run_id)
        process = psutil.Process(int(run.tags[PROCESS_TAG].split(":")[1]))
        end_dead_runs(light.instance)
        assert light.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED

        server = process.parent()
        assert server.pid != os.getpid()
        for killed in (server, process):
            killed.kill()
        psutil.wait_procs([server, process], 10)
        assert light.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED  # nobody noticed
        end_dead_runs(light.instance)
    assert light.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert not pool.get_concurrency_info("gpu").pending_steps


@pytest.fixture
def waiting(light: LightProject) -> Callable[[], bool]:
    """Runs something that needs the pool's only place."""

    @dg.asset(pool=GPU_POOL)
    def model() -> None: ...

    definitions = dg.Definitions([model], jobs=[dg.define_asset_job("models", "*")], loggers={"console": console})
    light.instance.event_log_storage.set_concurrency_slots(GPU_POOL, 1)
    return lambda: execute(definitions, light.instance, Step("models", (model.key,)))


def test_a_run_that_waits_takes_the_place_of_a_process_that_is_killed_meanwhile(
    light: LightProject, waiting: Callable[[], bool], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("instpt_assets.defs.dead_runs.POLL_SECONDS", 0.1)
    with subprocess.Popen(["sleep", "60"]) as other:
        holder = run_of(light, {PROCESS_TAG: f"{socket.gethostname()}:{other.pid}:{process_start(other.pid)}"})

        def kill_when_it_waits() -> None:
            while not light.instance.event_log_storage.get_concurrency_info(GPU_POOL).pending_step_count:
                time.sleep(0.05)
            time.sleep(1)  # so long it has to say so
            other.kill()

        killer = threading.Thread(target=kill_when_it_waits)
        killer.start()
        assert waiting()
        killer.join()
    assert light.instance.get_run_by_id(holder.run_id).status == dg.DagsterRunStatus.FAILURE
    said = f"waiting for a place in pool gpu, held by run {holder.run_id[:8]} (step, process {other.pid} on {socket.gethostname()})\n"
    assert capfd.readouterr().out.count(said) == 1


def test_a_run_that_waits_sleeps(light: LightProject) -> None:
    light.instance.event_log_storage.set_concurrency_slots(GPU_POOL, 1)
    run_of(light, this_process())
    run = light.instance.create_run_for_job(light.definitions.resolve_job_def("shards"))
    with InstanceConcurrencyContext(light.instance, run) as places:
        assert not places.claim(GPU_POOL, "step")
        assert 0.5 < places.interval_to_next_pending_claim_check() <= 15


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (1, "it ended with status 1"),
        (128 + 9, "it was ended by SIGKILL: did the machine run out of memory?"),
        (-9, "its supervisor was ended by SIGKILL: did the machine run out of memory?"),
        (128 + 4, "it was ended by SIGILL: this processor lacks an instruction"),
        (255, "it ended with status 255"),
    ],
)
def test_the_end_of_a_worker_is_told_in_words(status: int, said: str) -> None:
    assert ended_by(status).startswith(said)
