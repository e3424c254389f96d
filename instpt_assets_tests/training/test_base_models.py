"""Base models: what stands for their content, and the files of exactly one revision."""

from pathlib import Path

import pytest

from instpt_assets.mixture.tokenizer import FILES as TOKENIZER_FILES
from instpt_assets.training.base_models import WEIGHT_FILES, BaseModelError, find_base_model

COMMITS = ("a" * 40, "b" * 40)
FILES = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "{}",
    "README.md": "read",
    "consolidated.safetensors": "again",
}


def write_model(folder: Path, **changes: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **changes}.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, without a hub, with two revisions of `org/model`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--model"
    for commit in COMMITS:
        write_model(repository / "snapshots" / commit, **{"model.safetensors": commit})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS[0])
    (repository / "refs" / "v2").write_text(COMMITS[1])
    return repository


@pytest.mark.parametrize(
    ("name", "weights_change", "tokenizer_changes"),
    [("model.safetensors", True, False), ("config.json", True, False), ("tokenizer.json", False, True), ("README.md", False, False), ("consolidated.safetensors", False, False)],
)  # fmt: skip
def test_a_folder_is_its_content_as_far_as_a_stage_reads_it(
    tmp_path: Path, name: str, weights_change: bool, tokenizer_changes: bool
) -> None:
    folder = write_model(tmp_path / "model")
    before = [find_base_model(str(folder), files) for files in (WEIGHT_FILES, TOKENIZER_FILES)]
    assert [found.digest for found in before] == [find_base_model(str(folder), found.patterns).digest for found in before]
    (folder / name).write_text(FILES[name] + ".")
    after = [find_base_model(str(folder), found.patterns) for found in before]
    assert [a.digest != b.digest for a, b in zip(after, before, strict=True)] == [weights_change, tokenizer_changes]
    assert before[0].pinned == f"sha256:{before[0].digest}" and before[0].url == str(folder) and before[0].folder() == folder


def test_a_revision_is_its_commit(cache: Path) -> None:
    for revision, commit in (("", COMMITS[0]), ("@main", COMMITS[0]), ("@v2", COMMITS[1]), (f"@{COMMITS[1]}", COMMITS[1])):
        found = find_base_model(f"org/model{revision}", WEIGHT_FILES)
        assert (found.pinned, found.url, found.digest) == (f"org/model@{commit}", f"hf://org/model@{commit}", commit)
        assert find_base_model(found.url, WEIGHT_FILES) == found
        assert (found.folder() / "model.safetensors").read_text() == commit
    (cache / "refs" / "main").write_text(COMMITS[1])
    assert find_base_model("org/model", WEIGHT_FILES).digest == COMMITS[1]


def test_what_cannot_be_had_says_what_to_do(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"'org/other' is no folder here, and the hub does not give it .* pin a commit"):
        find_base_model("org/other", WEIGHT_FILES)
    with pytest.raises(BaseModelError, match="'org/model@v3' is no folder here"):
        find_base_model("org/model@v3", WEIGHT_FILES)
    with pytest.raises(BaseModelError, match=f"'org/model@{'c' * 40}' is no folder here"):
        find_base_model(f"org/model@{'c' * 40}", WEIGHT_FILES).folder()
    folder = write_model(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"pickled' lacks model\*\.safetensors"):
        find_base_model(str(folder), WEIGHT_FILES)
    (cache / "snapshots" / COMMITS[0] / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match=rf"'org/model@{COMMITS[0]}' lacks tokenizer\.json"):
        find_base_model("org/model", TOKENIZER_FILES).folder()


def test_a_base_model_that_is_another_than_planned_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    planned = find_base_model(str(folder), WEIGHT_FILES)
    assert find_base_model(str(folder), WEIGHT_FILES, digest=planned.digest) == planned
    (folder / "model.safetensors").write_text("other weights")
    with pytest.raises(BaseModelError, match="has changed since this was planned"):
        find_base_model(str(folder), WEIGHT_FILES, digest=planned.digest)
