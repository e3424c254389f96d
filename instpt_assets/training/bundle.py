"""A training as a folder to carry to a bare machine, and its start there: `python -m instpt_assets.training.bundle FOLDER`.

The folder holds all that the training needs: its sequences (`data`, `held_out`), tokenizer, base model and job, in files of at most so many
megabytes; what is larger is cut into `<name>.part-00000`, …, and put together at the start. The machine needs the folder `instpt_assets`
and torch, transformers, numpy, safetensors and pydantic, nothing else. Started again, a training goes on where it was.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from instpt_assets.errors import UserError
from instpt_assets.mixture.flat_sequences import write_sequences
from instpt_assets.recipe.execution import Execution
from instpt_assets.training.base_models import WEIGHT_FILES
from instpt_assets.training.job import FlatData, TrainingJob, open_held_out, open_sequences
from instpt_assets.training.launch import run

JOB, FILES = "job.json", "files.json"
DATA, HELD_OUT, TOKENIZER, MODEL, OUT, STATE = "data", "held_out", "tokenizer", "model", "out", "state"
_PART = ".part-"
_BLOCK = 1 << 20


class BundleError(UserError):
    """A bundle that cannot be written or used; the message says what to do."""


def write_bundle(job: TrainingJob, folder: Path, *, max_file_bytes: int) -> dict[str, Any]:
    """Write a training's folder.

    Args:
        job: the training; its base model, if it has one, in a local folder.
        folder: where; empty or not there yet.
        max_file_bytes: no file is larger.

    Returns:
        num_sequences, num_files, bytes.

    Raises:
        BundleError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BundleError(f"{folder} is not empty: name another folder, or remove it")
    from instpt_assets.mixture.tokenizer import load_encoder

    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = load_encoder(job.tokenizer).vocab_size
    source, held_out = open_sequences(job), open_held_out(job)
    write_sequences(source, folder / DATA, vocab_size=vocab_size)
    if held_out is not None:
        write_sequences(held_out, folder / HELD_OUT, vocab_size=vocab_size)
    _copy(job.tokenizer, ["*"], folder / TOKENIZER)
    if isinstance(job.model, str):
        _copy(Path(job.model), WEIGHT_FILES, folder / MODEL)
    carried = _placed(job, folder, Path()).model_copy(update={"ancestors": None, "state_url": None})
    (folder / JOB).write_text(carried.model_dump_json(indent=1) + "\n", encoding="utf-8")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    record = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    num_bytes = sum(path.stat().st_size for path in files)
    for path in files:
        if path.stat().st_size > max_file_bytes:
            _cut(path, max_file_bytes)
    (folder / FILES).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    num_files = sum(path.is_file() for path in folder.rglob("*"))
    return {"num_sequences": len(source), "num_files": num_files, "bytes": num_bytes}


def open_bundle(folder: Path, *, out: Path | None = None, execution: Execution | None = None) -> TrainingJob:
    """A bundle's training as a job of this machine; what was cut is put together, and every file compared with what was written.

    Args:
        folder: the bundle.
        out: where the checkpoints go; `out` in the bundle by default.
        execution: how it is computed; as where the bundle was made by default.

    Raises:
        BundleError: this is no bundle, a file is missing, or its bytes are not those that were written.
    """
    if not (folder / FILES).is_file():
        raise BundleError(f"{folder} is no bundle: it has no {FILES}")
    for name, digest in json.loads((folder / FILES).read_text(encoding="utf-8")).items():
        path = folder / name
        if not path.exists():
            _join(path)
        if _sha256(path) != digest:
            raise BundleError(f"{path} has other content than was written: carry the bundle over again")
        for part in _parts(path):
            part.unlink()
    job = TrainingJob.model_validate_json((folder / JOB).read_text(encoding="utf-8"))
    job = _placed(job, folder, folder.absolute())
    return job.model_copy(update={"out": out or job.out, "execution": execution or job.execution})


def _placed(job: TrainingJob, folder: Path, root: Path) -> TrainingJob:
    """The job with all files where a bundle has them, below a root."""
    places: dict[str, Any] = {"tokenizer": root / TOKENIZER, "out": root / OUT, "state_folder": root / STATE}
    if isinstance(job.model, str):
        places["model"] = str(root / MODEL)
    held_out = root / HELD_OUT if (folder / HELD_OUT).exists() else None
    return job.model_copy(update={**places, "data": FlatData(folder=root / DATA, held_out=held_out)})


def _copy(source: Path, patterns: Sequence[str], target: Path) -> None:
    target.mkdir()
    for path in sorted({path for pattern in patterns for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, target / path.name)


def _cut(path: Path, max_bytes: int) -> None:
    """Replace a file by parts."""
    with path.open("rb") as stream:
        for number in range(-(-path.stat().st_size // max_bytes)):
            with path.with_name(f"{path.name}{_PART}{number:05d}").open("wb") as part:
                left = max_bytes
                while left and (block := stream.read(min(left, _BLOCK))):
                    part.write(block)
                    left -= len(block)
    path.unlink()


def _join(path: Path) -> None:
    """Put a file together from its parts; it appears when it is whole."""
    parts = _parts(path)
    if not parts:
        raise BundleError(f"{path} is missing: carry the bundle over again")
    unfinished = path.with_name(f".{path.name}.joining")
    with unfinished.open("wb") as stream:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, stream, _BLOCK)
    unfinished.replace(path)


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}{_PART}*"))


def _sha256(path: Path) -> str:
    state = sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _tell(message: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Start, or go on with, the training of a bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the bundle")
    parser.add_argument("--out", type=Path, help="where the checkpoints go (default: out, in the bundle)")
    parser.add_argument("--execution", help='an execution profile as JSON, e.g. \'{"device": "cuda"}\', or a file with it')
    arguments = parser.parse_args()
    try:
        execution = None
        if arguments.execution is not None:
            given = arguments.execution if arguments.execution.lstrip().startswith("{") else Path(arguments.execution).read_text("utf-8")
            execution = Execution.model_validate_json(given)
        job = open_bundle(arguments.folder, out=arguments.out and arguments.out.absolute(), execution=execution)
        job.out.mkdir(parents=True, exist_ok=True)
        _tell({"kind": "done", "out": str(job.out), "statistics": run(job, _tell)})
    except (UserError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
