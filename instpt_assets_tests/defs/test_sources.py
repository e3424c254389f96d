"""What is read while it changes is not committed under the identity of what it was before."""

from pathlib import Path
from typing import Any

import pytest
from light_project import LightProject, failure

from instpt_assets.corpus.files import SourceError
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import source_digest
from instpt_assets.defs import corpus
from instpt_assets.defs.shards import range_tags
from instpt_assets.defs.sources import unchanged
from instpt_assets.store.manifest import Spec
from instpt_assets.store.store import source_input


def test_a_corpus_file_that_changes_behind_its_digest_is_told_and_made_in_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    light = LightProject(tmp_path, shards="a")
    one = range_tags("notes--a", "notes--a")

    def late(*arguments: Any, **options: Any) -> dict[str, Any]:
        light.write("a", note="A sentence that arrives late.")
        return ingest(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "ingest", late)
        assert "a.jsonl' changed while it was read: materialize again" in failure(light.run("shards", "raw_corpus", tags=one))
    assert light.run("shards", "raw_corpus", tags=one).success
    assert light.project.plan().is_current("raw_corpus", "notes--a")


def test_a_source_that_changes_while_it_is_read_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "tasks"
    source.mkdir()
    (source / "a.jsonl").write_text('{"text": "one"}\n')
    given = source_input(str(source), source_digest(str(source)))
    spec = Spec(asset="tuning_collection", partition="all", code_version=1, recipe={}, inputs=(given,))
    assert unchanged(lambda *_: {"rows": 1}, [str(source)])(spec, {}, tmp_path) == {"rows": 1}

    def growing(*_: object) -> dict[str, Any]:
        (source / "b.jsonl").write_text('{"text": "two"}\n')
        return {}

    with pytest.raises(SourceError, match="tasks' changed while it was read"):
        unchanged(growing, [str(source)])(spec, {}, tmp_path)
