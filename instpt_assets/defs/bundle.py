"""`python -m instpt_assets.defs.bundle <arm>/pretrained_checkpoint`: a training as a folder to carry to a bare machine (`training.bundle`)."""

import argparse
import sys
from pathlib import Path

from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.store.store import resolve

STAGES = ("pretrained_checkpoint", "instruction_tuned_checkpoint")


def main() -> None:
    """Write the bundle of a training of the project that the environment names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("asset", help=f"<arm>/{STAGES[0]} or <arm>/{STAGES[1]}; what it is made from must be materialized")
    parser.add_argument("--seed", type=int, default=0, help="the arm's repeat, 0 by default")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is empty or not there yet")
    parser.add_argument("--max-file-mb", type=float, default=12.0, help="no file is larger (default: 12)")
    arguments = parser.parse_args()
    try:
        project, seed = Project.from_environment(), f"seed-{arguments.seed}"
        sys.stdout.write(bundle(project, arguments.asset, seed, arguments.out, arguments.max_file_mb))
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")


def bundle(project: Project, asset: str, seed: str, out: Path, max_file_mb: float) -> str:
    """Write a training's bundle; what to tell a person.

    Args:
        project: whose current artifacts are taken.
        asset: the checkpoint's asset key as a path.
        seed: its partition.
        out: a folder that is empty or not there yet.
        max_file_mb: no file is larger.

    Raises:
        UserError: something that it is made from is missing, or the folder is not empty.
        ValueError: there is no such training, or files may hold nothing.
    """
    arm, _, stage = asset.rpartition("/")
    recipe = project.recipe
    if arm not in recipe.arms or stage not in STAGES or (stage == STAGES[1] and recipe.instruction_tuning is None):
        stages = STAGES[: 2 if recipe.instruction_tuning else 1]
        raise ValueError(f"'{asset}' is no training of the recipe '{recipe.name}' ({' or '.join(stages)} of {', '.join(recipe.arms)})")
    if seed not in recipe.seeds:
        raise ValueError(f"--seed: the recipe '{recipe.name}' has no '{seed}' (it has: {', '.join(recipe.seeds)})")
    if max_file_mb < 1e-3:
        raise ValueError(f"--max-file-mb {max_file_mb:g}: give at least 0.001")
    from instpt_assets.training.bundle import write_bundle
    from instpt_assets.workers import instruction_tune, pretrain

    spec = project.plan().spec(asset, seed)
    worker = pretrain if stage == STAGES[0] else instruction_tune
    job = worker.training_job(spec, resolve(project.store, spec.inputs), project.execution, out)
    written = write_bundle(job, out, max_file_bytes=int(max_file_mb * 1e6))
    return (
        f"written: {out}: {written['num_sequences']:,} sequences, {written['bytes'] / 1e6:,.1f} MB in {written['num_files']} files\n"
        f"there:   carry it and the folder instpt_assets over; with torch, transformers, numpy, safetensors and pydantic installed run\n"
        f'         python -m instpt_assets.training.bundle {out.name} (--execution \'{{"device": "cuda"}}\' on a GPU)\n'
    )


if __name__ == "__main__":
    main()
