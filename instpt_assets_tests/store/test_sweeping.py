"""What killed processes left goes when it is old, on disk and on an S3 server; what is committed or alive stays."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from instpt_assets.store import sweeping
from instpt_assets.store.manifest import Spec
from instpt_assets.store.registration import register_shards
from instpt_assets.store.store import Store
from instpt_assets.store.sweeping import sweep

DAY = 24 * 3600.0


def spec(number: int) -> Spec:
    return Spec(asset="corpus/raw", partition="a--0", code_version=1, recipe={"x": number}, inputs=())


def put(store: Store, path: str) -> str:
    store.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    store.fs.pipe_file(path, b"12345")
    return path


def files(store: Store) -> set[str]:
    store.fs.invalidate_cache()
    return set(store.fs.find(store.root))


@pytest.fixture
def days_later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Moves the clock on."""
    now = time.time
    return lambda days: monkeypatch.setattr("instpt_assets.store.sweeping.time.time", lambda: now() + days * DAY)


@pytest.fixture
def left(store: Store) -> set[str]:
    """Files that killed writers left, beside committed ones, pointers and registrations."""
    for number in (1, 2):
        with store.write(spec(number)) as draft:
            (draft.folder / "data.txt").write_text("committed")
        artifact = store.find(spec(number))
        assert artifact is not None
        store.point("demo", artifact)
    register_shards(store, "demo", ["a--0"])
    one, three = spec(1).identity, spec(3).identity
    return {
        put(store, path)
        for path in (
            store.path("corpus/raw", "a--0", one, "0123456789ab", "late.txt"),
            store.path("corpus/raw", "a--0", three, "0123456789ab", "checkpoint", "half.txt"),
            store.path("corpus/raw", "a--0", three, "ba9876543210", "half.txt"),
            store.path("corpus/raw", "a--0", three, f".manifest.json.{'0' * 32}"),
            store.path("_progress", "corpus/raw", "a--0", one, "step-1", "state"),
            store.path("_progress", "corpus/raw", "a--0", three, "0.jsonl"),
            store.path("_registered", "demo", f".00000001.json.{'0' * 32}"),
        )
    }


def test_what_nothing_was_written_to_for_days_goes_and_the_rest_stays(store: Store, left: set[str], days_later: Any) -> None:
    kept = files(store) - left
    days_later(6.9)
    assert list(sweep(store, 7)) == []
    assert files(store) == kept | left
    days_later(7.1)
    removed = list(sweep(store, 7))
    assert files(store) == kept
    assert len(removed) == 7 and sum(item.bytes for item in removed) == 5 * 7
    for number in (1, 2):
        artifact = store.find(spec(number))
        assert artifact is not None and artifact.file("data.txt").read_text() == "committed"
    assert [left for left in sweep(store, 7) if left.path.startswith(store.root)] == []  # but copies that were just made, days ago


def test_a_draft_lives_as_long_as_its_unfinished_work_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days_later: Any) -> None:
    store = Store(str(tmp_path))
    with store.write(spec(1)) as draft:
        (draft.folder / "tokenizer.json").write_text("{}")
        days_later(8)
        state = Path(put(store, store.path("_progress", "corpus/raw", "a--0", spec(1).identity, "step-1", "state")))
        os.utime(state, (time.time(), time.time()))
        assert list(sweep(store, 7)) == []
    assert store.find(spec(1)) is not None


def test_a_writer_that_commits_during_the_sweep_keeps_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days_later: Any) -> None:
    store = Store(str(tmp_path))
    listed = sweeping._listed
    draft = store.write(spec(1))
    (draft.__enter__().folder / "data.txt").write_text("late")

    def commit_behind(*arguments: Any) -> Any:
        found = listed(*arguments)
        draft.__exit__(None, None, None)
        return found

    monkeypatch.setattr(sweeping, "_listed", commit_behind)
    days_later(8)
    assert list(sweep(store, 7)) == []
    artifact = store.find(spec(1))
    assert artifact is not None and artifact.file("data.txt").read_text() == "late"


def test_drafts_and_states_of_trainings_in_the_cache_of_an_s3_store_go_too(s3_store: Store, tmp_path: Path, days_later: Any) -> None:
    cache = tmp_path / "cache"
    state = cache / "_progress" / "a" / "p" / spec(1).identity / "step-1" / "state"
    state.parent.mkdir(parents=True)
    state.write_text("x")
    killed = s3_store.write(spec(2))
    draft = killed.__enter__().folder
    (draft / "half.txt").write_text("x")
    assert cache in draft.parents
    days_later(8)
    assert {item.path for item in sweep(s3_store, 7)} == {str(state.parents[1]), str(draft)}
    assert not state.parents[1].exists() and not draft.exists()


def test_a_draft_in_the_cache_lives_as_long_as_its_unfinished_work_is_written(s3_store: Store, tmp_path: Path, days_later: Any) -> None:
    with s3_store.write(spec(1)) as draft:
        (draft.folder / "tokenizer.json").write_text("{}")
        days_later(8)
        state = tmp_path / "cache" / "_progress" / "corpus/raw" / "a--0" / spec(1).identity / "step-1" / "state"
        state.parent.mkdir(parents=True)
        state.write_text("x")
        os.utime(state, (time.time(), time.time()))
        assert list(sweep(s3_store, 7)) == []
    assert s3_store.find(spec(1)) is not None
    assert not draft.folder.parent.exists()


def test_days_that_would_take_living_writers_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        list(sweep(Store(str(tmp_path)), 0.5))


def test_the_command_says_what_it_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    old = Path(put(store, store.path("corpus/raw", "a--0", spec(0).identity, "000000000000", "half.txt")))
    for path in (old, old.parent):
        os.utime(path, (0, 0))
    done = subprocess.run(
        [sys.executable, "-m", "instpt_assets.defs.clean_store"],
        env={**os.environ, "INSTPT_STORE": store.url}, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(f"removed {old.parent} (0.0 MB, last written 1970-01-01")
    assert "1 leftovers" in done.stdout and not old.exists()


def test_copies_of_artifacts_on_s3_go_when_nobody_used_them_for_days(s3_store: Store, days_later: Any) -> None:
    folders = []
    for number in (1, 2):
        with s3_store.write(spec(number)) as draft:
            (draft.folder / "data.txt").write_text("committed")
        artifact = s3_store.find(spec(number))
        assert artifact is not None
        folders.append(artifact.local())
    killed = folders[1] / f".data.txt.{'0' * 32}"
    killed.write_text("comm")
    week_ago = time.time() - 7 * DAY
    for path in (*folders, *(folder / "data.txt" for folder in folders), killed):
        os.utime(path, (week_ago, week_ago))
    assert artifact.file("data.txt").read_text() == "committed"  # of the second one
    days_later(0.1)
    assert [(Path(left.path), left.bytes) for left in sweep(s3_store, 7)] == [(killed, 4), (folders[0], 9)]
    assert (folders[1] / "data.txt").exists() and not folders[0].parent.exists()
    again = s3_store.find(spec(1))
    assert again is not None and again.file("data.txt").read_text() == "committed"
