"""`make trace`: what stands in a training sequence, or in all of a step, back to passages, documents and raw files; or where a document stands."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from instpt_assets.defs.current_artifacts import NotMaterialized
from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.mixture.index import PIECES
from instpt_assets.mixture.traced import Piece, Standing, TracedSequence
from instpt_assets.mixture.tracing import Tracer
from instpt_assets.recipe.recipe import Recipe
from instpt_assets.store.store import Artifact


def main() -> None:
    """Trace what the arguments name in the project that the environment names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", default="", help="whose training data")
    parser.add_argument("--seed", type=int, default=0, help="the arm's repeat, 0 by default")
    parser.add_argument("--sequence", type=int, default=None, help="a training sequence, counted from 0 …")
    parser.add_argument("--step", type=int, default=None, help="… or all sequences of a training step, counted from 1 …")
    parser.add_argument("--document", default=None, help="… or a document's id: in which sequences and steps it stands")
    parser.add_argument("--tokens", default=None, help="with --sequence: only these tokens of it (first-last, from 0), their text in full")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(
            trace(
                Project.from_environment(),
                arguments.arm,
                seed=arguments.seed,
                sequence=arguments.sequence,
                step=arguments.step,
                document=arguments.document,
                tokens=arguments.tokens,
                as_json=arguments.json,
            )
        )
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")


def trace(
    project: Project,
    arm: str,
    *,
    seed: int = 0,
    sequence: int | None = None,
    step: int | None = None,
    document: str | None = None,
    tokens: str | None = None,
    as_json: bool = False,
) -> str:
    """Trace training data.

    Args:
        project: whose current mixture is taken.
        arm: whose.
        seed: of the mixture.
        sequence: a training sequence, from 0.
        step: or all sequences of a training step, from 1.
        document: or a document's id.
        tokens: of the sequence only these: `first-last`, from 0.
        as_json: give JSON in place of text.

    Raises:
        ValueError: an argument is missing or names nothing.
        UserError: the mixture is not materialized, or has no such sequence, step or document.
    """
    if (sequence is None) + (step is None) + (document is None) != 2:
        raise ValueError("name one of SEQUENCE (from 0), STEP (from 1) and DOCUMENT (its id)")
    if tokens is not None and sequence is None:
        raise ValueError("TOKENS goes with SEQUENCE")
    mixture = _mixture(project, arm, seed)
    tracer = Tracer(mixture)
    notes = _notes(project, mixture, arm, seed)
    if document is not None:
        standing = tracer.standing(document)
        return _json([asdict(each) for each in standing]) if as_json else _told_standing(document, standing, notes)
    wanted: Sequence[int] = [sequence] if sequence is not None else tracer.of_step(step or 0)
    traced = tracer.trace(wanted, _tokens(tokens))
    return _json([asdict(each) for each in traced]) if as_json else "\n".join([*notes, *map(_told_sequence, traced)])


def _mixture(project: Project, arm: str, seed: int) -> Artifact:
    recipe: Recipe = project.recipe
    if arm not in recipe.arms:
        what = f"the recipe '{recipe.name}' has no arm '{arm}'" if arm else "say which"
        raise ValueError(f"ARM: {what} (it has: {', '.join(recipe.arms)})")
    if f"seed-{seed}" not in recipe.seeds:
        raise ValueError(f"SEED: the recipe '{recipe.name}' has seeds 0 to {recipe.num_seeds - 1}")
    asset = f"{arm}/tokenized_mixture"
    try:
        mixture = project.plan().current(asset, f"seed-{seed}")
        if PIECES not in mixture.names:
            raise NotMaterialized(f"{asset} was made by an earlier version of this code: materialize it again")
    except NotMaterialized as error:
        raise NotMaterialized(f"{error}: make materialize SELECT='+key:\"{asset}\"'") from error
    return mixture


def _notes(project: Project, mixture: Artifact, arm: str, seed: int) -> list[str]:
    """Whether the arm's model was trained on another mixture than this."""
    try:
        checkpoint = project.plan().current(f"{arm}/pretrained_checkpoint", f"seed-{seed}").manifest
    except NotMaterialized:
        return []
    (trained,) = (item for item in checkpoint.inputs if item.asset == mixture.manifest.asset)
    if trained.digest == mixture.manifest.digest:
        return []
    return [
        f"note: the current checkpoint of {arm} was trained on another mixture ({trained.identity}) than this ({mixture.manifest.identity})\n"
    ]


def _tokens(text: str | None) -> range | None:
    if text is None:
        return None
    first, dash, last = text.partition("-")
    if not first.strip().isdigit() or (dash and not last.strip().isdigit()):
        raise ValueError(f"TOKENS: '{text}' is no range of tokens: give first-last, as 0-99")
    return range(int(first), int(last or first) + 1)


def _told_sequence(traced: TracedSequence) -> str:
    padding = f", {traced.num_padding} of them padding" if traced.num_padding else ""
    head = f"sequence {traced.sequence} (step {traced.step}): {traced.num_tokens} tokens{padding}"
    return "\n".join([head, *(line for piece in traced.pieces for line in _told_piece(piece)), ""])


def _told_piece(piece: Piece) -> list[str]:
    part = f"tokens {piece.begin}-{piece.begin + piece.num_tokens - 1} of {piece.row_tokens}"
    whole = "whole" if piece.num_tokens == piece.row_tokens else part
    lines = [f"  {piece.position:>6}  {piece.asset} {piece.shard}, row {piece.row}: {piece.row_id} ({whole})"]
    if piece.text is not None:
        lines.append(f"          “{piece.text}”")
    if piece.component is not None:
        lines.append(f"          component {piece.component}")
    for document in piece.documents:
        source = document.source or "a clean corpus that is no longer in the store"
        lines.append(f"          document {document.document_id} from {source}")
    if piece.layout is not None:
        lines.append(f"          layout {piece.layout}")
    for passage in piece.passages:
        if passage.status is None:
            lines.append(f"          passage {passage.passage_id}: its pairs are no longer in the store")
        else:
            chain = f"shot {passage.shot} of chain {passage.chain_id}, " if passage.chain_id is not None else ""
            lines.append(f"          passage {passage.passage_id}: {chain}{passage.status}, {passage.num_pairs} pairs")
    return lines


def _told_standing(document: str, standing: Sequence[Standing], notes: Sequence[str]) -> str:
    num_times = sum(each.begin == 0 for each in standing)
    head = (
        f"document {document} stands {num_times} times in training:" if num_times != 1 else f"document {document} stands once in training:"
    )
    lines = [
        f"  sequence {each.sequence} (step {each.step}): {each.asset} {each.shard}, {each.row_id}, "
        f"tokens {each.begin}-{each.begin + each.num_tokens - 1} of {each.row_tokens}"
        for each in standing
    ]
    return "\n".join([*notes, head, *lines, ""])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    main()
