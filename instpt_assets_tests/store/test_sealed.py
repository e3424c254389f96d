"""Sealed folders: all of them or nothing, here and, mirrored, on S3."""

import json
import shutil
from pathlib import Path

import pytest

from instpt_assets.store.sealed import SealedFolders, is_intact, seal, write_aside
from instpt_assets.store.store import Store


def written(folders: SealedFolders, text: str) -> Path:
    aside = write_aside(folders.folder)
    (aside / "inner").mkdir()
    (aside / "inner/weights").write_text(text)
    return aside


def test_folder_is_intact_only_with_exactly_its_files(tmp_path):
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside/a").write_text("1")
    seal(tmp_path / "aside", tmp_path / "sealed")
    assert is_intact(tmp_path / "sealed")
    (tmp_path / "sealed/b").write_text("2")
    assert not is_intact(tmp_path / "sealed")


def test_sealing_replaces_what_lies_there(tmp_path):
    for text in ("1", "2"):
        (tmp_path / "aside").mkdir()
        (tmp_path / "aside/a").write_text(text)
        seal(tmp_path / "aside", tmp_path / "sealed")
    assert (tmp_path / "sealed/a").read_text() == "2" and is_intact(tmp_path / "sealed")
    assert {path.name for path in tmp_path.iterdir()} == {"sealed"}


@pytest.fixture
def url(store: Store) -> str:
    return f"{store.url}/_progress/arm"


def test_another_machine_finds_the_newest_and_its_bytes_are_checked(store: Store, url: str, tmp_path: Path) -> None:
    here = SealedFolders(tmp_path / "here", url)
    here.seal(written(here, "one"), "step-1")
    here.seal(written(here, "two"), "step-2", replacing="step-")
    here.seal(written(here, "two again"), "step-2")
    here.close()
    assert [path.name for path in here.folder.iterdir()] == ["step-2"]

    there = SealedFolders(tmp_path / "there", url)
    assert there.names("step-") == ["step-2"] and there.names("other") == []
    found = there.find("step-2")
    assert found == there.folder / "step-2" and (found / "inner/weights").read_text() == "two again" and is_intact(found)
    assert there.find("step-1") is None

    # What a kill left of an upload, and bytes that are not those of the record, are nothing.
    root = store.path("_progress", "arm")
    store.write_text(f"{root}/step-3/0123/inner/weights", "half")
    record = json.loads(store.read_text(f"{root}/step-2/sha256.json") or "")
    store.write_text(f"{root}/step-2/{record['folder']}/inner/weights", "two agaiN")
    store.fs.invalidate_cache()
    elsewhere = SealedFolders(tmp_path / "elsewhere", url)
    assert elsewhere.names("step-") == ["step-2"] and elsewhere.find("step-2") is None
    assert not list(elsewhere.folder.iterdir())


def test_a_folder_that_is_damaged_here_is_fetched_again(url: str, tmp_path: Path) -> None:
    here = SealedFolders(tmp_path / "here", url)
    here.seal(written(here, "one"), "step-1")
    here.close()
    (here.folder / "step-1/inner/weights").write_text("")
    found = SealedFolders(here.folder, url).find("step-1")
    assert found is not None and (found / "inner/weights").read_text() == "one"


def test_what_a_kill_kept_from_the_store_is_uploaded_when_it_is_found_again(url: str, tmp_path: Path) -> None:
    killed = SealedFolders(tmp_path / "here")
    killed.seal(written(killed, "one"), "checkpoint-1")
    here = SealedFolders(killed.folder, url)
    assert here.find("checkpoint-1") is not None
    here.close()
    there = SealedFolders(tmp_path / "there", url).find("checkpoint-1")
    assert there is not None and (there / "inner/weights").read_text() == "one"


def test_a_store_that_does_not_answer_costs_the_copy_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    here = SealedFolders(tmp_path / "here", str(tmp_path / "file/below"))
    here.seal(written(here, "one"), "step-1")
    here.close()
    assert "was not copied to" in caplog.text
    assert here.find("step-1") is not None
    assert [path.name for path in here.folder.iterdir()] == ["step-1"]


def test_what_is_replaced_before_its_turn_is_not_uploaded(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from instpt_assets.store.mirror import Mirror

    begun, go, uploaded = threading.Event(), threading.Event(), []
    upload = Mirror._upload

    def slow(self, name, *arguments):
        begun.set()
        assert go.wait(20)
        uploaded.append(name)
        upload(self, name, *arguments)

    monkeypatch.setattr(Mirror, "_upload", slow)
    here = SealedFolders(tmp_path / "here", url)
    here.seal(written(here, "one"), "step-1")
    assert begun.wait(20)
    for number in (2, 3, 4):
        here.seal(written(here, str(number)), f"step-{number}", replacing="step-")
    go.set()
    here.close()
    assert uploaded == ["step-1", "step-4"]
    shutil.rmtree(here.folder)
    assert SealedFolders(here.folder, url).names("step-") == ["step-4"]


def test_an_upload_that_fails_is_tried_again_before_what_comes_behind_it(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from instpt_assets.store import mirror

    tried: list[str] = []
    upload, mended = mirror.Mirror._upload, threading.Event()

    def sometimes(self, name, *arguments):
        tried.append(name)
        if len(tried) <= 2:
            raise OSError("no answer")
        mended.set()
        upload(self, name, *arguments)

    monkeypatch.setattr(mirror, "_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(mirror.Mirror, "_upload", sometimes)
    here = SealedFolders(tmp_path / "here", url)
    for name in ("checkpoint-1", "step-1", "step-2"):
        here.seal(written(here, name), name, replacing="step-" if name == "step-2" else None)
    assert mended.wait(20)
    here.close()
    assert tried[:3] == ["checkpoint-1"] * 3 and tried[-1] == "step-2"
    assert not list(here.folder.glob(".writing-*"))
    shutil.rmtree(here.folder)
    there = SealedFolders(here.folder, url)
    assert there.find("checkpoint-1") is not None and there.names("") == ["checkpoint-1", "step-2"]
