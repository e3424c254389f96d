"""`make export`: a dataset folder that `datasets` reads, the same again, nowhere half-written; and what it says when there is nothing to export."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest
import yaml
from light_project import CORPUS, LightProject

from instpt_assets.augmentation import dataset_folder
from instpt_assets.augmentation.dataset_card import Licenses, ShardRecord
from instpt_assets.augmentation.dataset_folder import ExportError
from instpt_assets.corpus.documentation import read_documentation
from instpt_assets.defs import export as exporting
from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.export import export
from instpt_assets.defs.shards import range_tags
from instpt_assets.store.manifest import Input
from instpt_assets.store.store import Artifact, Store, source_input


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> LightProject:
    """A project with pairs that came along, its texts materialized for two of three shards."""
    root = tmp_path_factory.mktemp("project")
    folder = root / "published"
    folder.mkdir()
    texts = [item.text[:500] for item in read_documentation("pydoc://topics")][20:]
    for name, own in (("a", texts[:4]), ("b", texts[4:6]), ("c", texts[6:8])):
        records: list[dict[str, Any]] = [
            {"id": f"{name}{n}", "text": text, "license": "CC-BY-4.0" if n else "PSF-2.0", "pairs": [pair(text, n), pair(text[40:], n + 1)]}
            for n, text in enumerate(own)
        ]
        records[0]["pairs"].append({"question": "Which?", "answer": "neither here nor there", "options": ["one", "two"]})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    light = LightProject(
        root,
        shards="",
        corpora={"published": {"source": str(folder / "*.jsonl"), "id_field": "id"}},
        tokenizer={"vocab_size": 400, "pinned_shards": ["published--a"]},
        pair_sets={"imported": {"writer": {"kind": "imported"}}, "empty": {"writer": {"kind": "imported"}, "fraction": 0.5}},
    )
    made = [*CORPUS, "imported/instruction_pairs", "imported/augmented_corpus"]
    assert light.run("shards", *made, tags=range_tags("published--a", "published--b")).success
    return light


def pair(text: str, number: int) -> dict[str, Any]:
    return {"question": f"What is word {number}?", "answer": text.split()[number]}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_the_stored_files_and_a_card_that_adds_up(light: LightProject, tmp_path: Path) -> None:
    out = tmp_path / "new" / "dataset"
    told = export(light.project, "imported", str(out))
    assert told.startswith(f"written: {out}")
    assert "published--c" in told
    plan = light.project.plan()
    for key in ("published--a", "published--b"):
        (stored,) = plan.current("imported/augmented_corpus", key).tables()
        assert (out / f"data/augmented/{key}-00000.parquet").read_bytes() == stored.read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "data", "provenance.json"]
    _, front, card = (out / "README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["configs"] == [
        {"config_name": "augmented", "default": True, "data_files": [{"split": "train", "path": "data/augmented/*.parquet"}]}
    ]
    assert front["license"] == ["cc-by-4.0", "other"]
    assert front["size_categories"] == ["n<1K"]
    texts = pl.read_parquet(out / "data/augmented/*.parquet")
    for line in (
        "| records read | 6 |",
        "| documents in these texts | 6 |",
        "| pairs written | 14 |",
        "| … dropped: answer is no option | 2 |",
        f"| pairs in these texts | {texts['num_pairs'].sum()} |",
        f"| texts | {texts.height} |",
        "| CC-BY-4.0 | 4 | 4 |",
        "| PSF-2.0 | 2 | 2 |",
    ):
        assert line in card
    assert "kind: imported" in card and "came with them" in card
    assert "**not** compared with evaluation examples" in card
    assert "not asked for (1): published--c." in card
    provenance = json.loads((out / "provenance.json").read_text())
    manifest = plan.current("imported/augmented_corpus", "published--b").manifest
    assert provenance["shards"]["published--b"][-1]["digest"] == manifest.digest
    assert manifest.identity in card
    for text in (card, json.dumps(provenance), told.replace(str(out), "")):
        assert str(light.root) not in text


def test_the_same_artifacts_give_the_same_files_and_are_not_written_again(light: LightProject, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        export(light.project, "imported", str(out), raw=True)
    assert contents(one) == contents(two)
    before = {path: path.stat().st_mtime_ns for path in one.rglob("*")}
    assert export(light.project, "imported", str(one), raw=True).startswith("already there")
    assert {path: path.stat().st_mtime_ns for path in one.rglob("*")} == before
    with pytest.raises(ExportError, match="is not empty and holds something else: name another folder"):
        export(light.project, "imported", str(one))
    documents = pl.read_parquet(one / "data/raw/*.parquet")
    assert documents.columns == ["document_id", "text", "metadata"]
    assert documents.height == 6


def test_a_failed_export_leaves_nothing_behind(light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "dataset").mkdir()  # an empty folder is free
    monkeypatch.setattr(dataset_folder.shutil, "copyfile", full)
    with pytest.raises(ExportError, match="cannot be written: .*No space left"):
        export(light.project, "imported", str(tmp_path / "dataset"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "dataset"]
    monkeypatch.undo()
    export(light.project, "imported", str(tmp_path / "dataset"))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_remote_folder_is_marked_incomplete_until_the_card_is_there(
    light: LightProject, s3_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{s3_store.url}/dataset"
    fs, root = fsspec.core.url_to_fs(url)
    export(light.project, "imported", str(tmp_path / "local"))
    put = fs.put_file

    def second_fails(local: str, remote: str) -> None:
        if "published--b" in remote:
            raise OSError("connection lost")
        put(local, remote)

    monkeypatch.setattr(fs, "put_file", second_fails)
    with pytest.raises(ExportError, match="connection lost"):
        export(light.project, "imported", url)
    assert fs.exists(f"{root}/INCOMPLETE") and not fs.exists(f"{root}/README.md")
    fs.pipe_file(f"{root}/data/augmented/of-another-run.parquet", b"x")
    monkeypatch.setattr(fs, "put_file", put)
    export(light.project, "imported", url)
    fs.invalidate_cache()
    names = {path.removeprefix(f"{root}/") for path in fs.find(root)}
    assert names == set(contents(tmp_path / "local"))
    assert all(fs.cat_file(f"{root}/{name}") == data for name, data in contents(tmp_path / "local").items())


def test_what_cannot_be_exported_says_what_to_do(light: LightProject, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(ValueError, match="no pair set 'synthesised' \\(it has: empty, imported\\)"):
        export(light.project, "synthesised", out)
    with pytest.raises(ValueError, match="PAIR_SET: say which"):
        export(light.project, None, out)
    with pytest.raises(ValueError, match="OUT: say where"):
        export(light.project, "imported", "")
    with pytest.raises(ValueError, match="SHARDS: not registered: published--z"):
        export(light.project, "imported", out, ["published--z"])
    with pytest.raises(NotMaterialized, match="no shard is materialized yet: make materialize SELECT='.+key:\"empty/augmented_corpus\"'"):
        export(light.project, "empty", out)
    with pytest.raises(NotMaterialized, match="published--c, is not materialized.*SHARDS='published--c'"):
        export(light.project, "imported", out, ["published--a", "published--c"])
    assert not Path(out).exists()


@pytest.mark.parametrize("stage", ["pairs", "augmented"])
def test_shards_made_with_another_model_or_wording_do_not_belong_together(
    light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    record = exporting._record

    def with_another(store: Store, key: str, artifact: Artifact) -> ShardRecord:
        found = record(store, key, artifact)
        manifest = getattr(found, stage)
        shared = source_input("model", key if key.endswith("b") else "")
        return replace(found, **{stage: manifest.model_copy(update={"inputs": (*manifest.inputs, shared)})})

    monkeypatch.setattr(exporting, "_record", with_another)
    with pytest.raises(
        ExportError, match="published--a and published--b were made by different recipes or versions: materialize the older"
    ):
        export(light.project, "imported", str(tmp_path / "out"))


def test_a_shard_that_its_source_has_lost_is_not_exported(light: LightProject, tmp_path: Path) -> None:
    source = light.root / "published" / "b.jsonl"
    kept = source.read_bytes()
    source.unlink()
    try:
        export(light.project, "imported", str(tmp_path / "out"))
    finally:
        source.write_bytes(kept)
    assert {path.name for path in (tmp_path / "out" / "data" / "augmented").iterdir()} == {"published--a-00000.parquet"}


def test_a_dataset_of_nothing_is_refused(light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = exporting._artifacts

    def without_texts(*arguments: Any) -> tuple[dict[str, Artifact], list[str]]:
        found, left_out = artifacts(*arguments)
        empty = {"statistics": {"num_rows": 0}}
        return {key: Artifact(one.store, one.manifest.model_copy(update=empty)) for key, one in found.items()}, left_out

    monkeypatch.setattr(exporting, "_artifacts", without_texts)
    with pytest.raises(ExportError, match="'imported' has no text in published--a, published--b: it chose no document there"):
        export(light.project, "imported", str(tmp_path / "out"))


@pytest.mark.parametrize("overlapped", [{}, {"quiz": 2}])
def test_the_card_of_decontaminated_texts_has_its_headings_on_lines_of_their_own(
    overlapped: dict[str, int], light: LightProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = exporting._artifacts
    examples = Input(asset="evaluation_examples", partition="all", identity="0" * 16, digest="0" * 64)

    def decontaminated(*arguments: Any) -> tuple[dict[str, Artifact], list[str]]:
        found, left_out = artifacts(*arguments)
        for key, one in found.items():
            statistics = {**one.manifest.statistics, "contaminated_pairs": overlapped}
            update = {"inputs": (*one.manifest.inputs, examples), "statistics": statistics}
            found[key] = Artifact(one.store, one.manifest.model_copy(update=update))
        return found, left_out

    monkeypatch.setattr(exporting, "_artifacts", decontaminated)
    monkeypatch.setattr(exporting, "_others", lambda *_: [])
    export(light.project, "imported", str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "evaluation example were removed" in card and ("quiz 4." in card) == bool(overlapped)
    before = [line for line, heading in pairwise(card.splitlines()) if heading.startswith("## ")]
    assert len(before) > 5 and set(before) == {""}


def test_licences_that_are_many_or_strange_leave_the_card_readable() -> None:
    strange = "All rights reserved | by\nme " + "x" * 200
    licenses = Licenses(Counter({strange: 5, **{f"L{n}": 2 for n in range(60)}}), Counter({strange: 7, **{f"L{n}": 3 for n in range(60)}}))
    *rows, others = licenses.rows()
    assert len(rows) == 50 and others == ("11 others", 22, 33)
    (shown,) = (row for row in rows if row[1:] == (5, 7))
    assert shown[0].startswith("All rights reserved \\| by me xx") and len(shown[0]) < 110


def test_datasets_reads_it_whole_and_as_a_stream(light: LightProject, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    export(light.project, "imported", str(out), raw=True)
    script = """if True:
        import json, sys
        from datasets import load_dataset
        texts = load_dataset(sys.argv[1], split="train")
        stream = load_dataset(sys.argv[1], "augmented", split="train", streaming=True)
        documents = load_dataset(sys.argv[1], "raw", split="train")
        print(json.dumps([list(texts), list(stream) == list(texts), len(documents)]))
    """
    environment = os.environ | {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    texts, same, num_documents = json.loads(done.stdout.splitlines()[-1])
    assert texts == pl.read_parquet(out / "data/augmented/*.parquet").to_dicts()
    assert same
    assert num_documents == 6
