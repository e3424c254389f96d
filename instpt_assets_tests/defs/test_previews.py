"""What the UI shows of an artifact."""

import base64
import io
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from instpt_assets.corpus.cleaning import clean
from instpt_assets.defs.previews import PLOT_BYTES, describe
from instpt_assets.recipe.cleaning import Cleaning, Masks
from instpt_assets.store.making import find_or_make
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import Artifact, Store


def make(folder: Path, fill: Any, **statistics: Any) -> Artifact:
    def build(spec: Spec, inputs: object, out: Path) -> dict[str, Any]:
        fill(out)
        return statistics

    return find_or_make(Store(str(folder)), Spec(asset="a", partition="p", code_version=1, recipe={}, inputs=()), build).artifact


def test_a_reused_artifact_is_described_without_its_data(tmp_path: Path) -> None:
    artifact = make(tmp_path, lambda out: pl.DataFrame({"text": ["a note"]}).write_parquet(out / "data-00000.parquet"), loss=float("nan"))
    first = describe(artifact, reused=False)
    artifact.file("data-00000.parquet").unlink()
    second = describe(artifact, reused=True)
    assert "a note" in second["preview"].value
    assert second == {**first, "reused": True}
    assert second["dagster/partition_row_count"] == 1 and second["loss"].value is None


def test_what_is_looked_for_first_stands_before_other_counts_and_can_be_plotted(tmp_path: Path) -> None:
    statistics = {"a_count": 1, "tokens_per_second": 1234567.891, "accepted_share": 0.1 / 0.3, "reused_chains": 0, "status": {"ok": 1 / 3}}
    shown = list(describe(make(tmp_path, lambda out: (out / "any").touch(), **statistics), reused=False).items())
    plain = [("tokens_per_second", 1234567.9), ("accepted_share", 0.333333), ("reused_chains", 0), ("a_count", 1)]
    start = shown.index(plain[0])
    assert shown[start : start + 4] == plain
    assert shown[-1][0] == "status" and shown[-1][1].value == {"ok": 0.333333}


@pytest.mark.parametrize(("size", "fits"), [((300, 300), True), ((900, 900), False)])
def test_a_large_picture_is_shown_or_it_says_where_it_lies(tmp_path: Path, size: tuple[int, int], fits: bool) -> None:
    picture = Image.frombytes("RGB", size, random.Random(0).randbytes(3 * size[0] * size[1]))
    artifact = make(tmp_path, lambda out: picture.save(out / "scores.png"))
    assert artifact.manifest.files[0].bytes > PLOT_BYTES
    shown = describe(artifact, reused=False)["scores_plot"].value
    assert len(shown) < PLOT_BYTES * 1.4
    if fits:
        data = base64.b64decode(shown.removeprefix("![scores](data:image/png;base64,").removesuffix(")"))
        assert Image.open(io.BytesIO(data)).size == size
    else:
        path = shown.split("`")[1]
        assert "too large" in shown and Path(path).read_bytes() == artifact.file("scores.png").read_bytes()


def test_a_clean_corpus_shows_its_steps_what_they_removed_and_what_was_masked(tmp_path: Path) -> None:
    rows = [{"document_id": f"c/{n}", "text": text, "source": "s", "metadata": "{}"} for n, text in enumerate(["Ask a@b.org.", "no", "##"])]
    pl.DataFrame(rows).write_parquet(tmp_path / "raw.parquet")
    duplicates = pl.DataFrame(schema={"document_id": pl.String, "duplicate_of": pl.String, "kind": pl.String, "similarity": pl.Float64})
    duplicates.write_parquet(tmp_path / "list.parquet")
    rules = Cleaning(min_characters=3, mask=Masks())

    def build(spec: Spec, inputs: object, out: Path) -> dict[str, Any]:
        return clean([tmp_path / "raw.parquet"], tmp_path / "list.parquet", rules, out=out)

    spec = Spec(asset="clean_corpus", partition="c--a", code_version=1, recipe={}, inputs=())
    shown = describe(find_or_make(Store(str(tmp_path / "store")), spec, build).artifact, reused=False)
    page = shown["preview"].value
    assert "| length | 3 | 2 | 66.67% |" in page and "| length | c/1 | too short: 2 characters, at least 3 allowed | no |" in page
    assert "a@b.org" not in page and "Ask email@example.com." in page
    assert (shown["num_read"], shown["num_documents"], shown["num_removed"]) == (3, 1, 2)
    assert shown["num_masks"].value == {"email": 1, "ipv4": 0, "ipv6": 0} and shown["steps"].value[1]["num_removed"] == 2
