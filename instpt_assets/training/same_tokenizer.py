"""Whether two tokenizer folders give every text the same ids: data tokenized with one is noise to a model trained with the other."""

import json
from pathlib import Path
from typing import Any

from instpt_assets.errors import UserError

TOKENIZER = "tokenizer.json"
_SPLITTING = ("normalizer", "pre_tokenizer")
_SHOWN = 3


class OtherTokenizer(UserError):
    """The data's tokenizer is not the model's."""


def check_same_tokenizer(tokenizer: Path, model: Path, *, name: str) -> None:
    """Compare the recipe's tokenizer with a model's: vocabulary, ids, merges and how text is split; what only concerns special tokens may differ.

    Args:
        tokenizer: the folder of the tokenizer that the data was made with.
        model: the model's folder.
        name: the model as its user knows it.

    Raises:
        OtherTokenizer: they differ, or the model has no tokenizer.json; the message says where.
    """
    if not (model / TOKENIZER).is_file():
        raise OtherTokenizer(
            f"the model '{name}' has no {TOKENIZER}, so nobody can tell that it knows the recipe's tokenizer: put its own into its folder"
        )
    difference = tokenizer_difference(tokenizer / TOKENIZER, model / TOKENIZER)
    if difference is not None:
        raise OtherTokenizer(
            f"the recipe's tokenizer is not that of the model '{name}': {difference}. "
            f"Give the recipe the model's tokenizer (tokenizer: {{model: {name}}}) and materialize tokenizer and what follows it again"
        )


def tokenizer_difference(one: Path, other: Path) -> str | None:
    """The first difference between two `tokenizer.json` that can change the ids of a text, in words; None if there is none."""
    if one.read_bytes() == other.read_bytes():
        return None
    ours, theirs = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    our_ids, their_ids = _ids(ours), _ids(theirs)
    if our_ids != their_ids:
        lacking = sorted(our_ids.keys() ^ their_ids.keys())
        if lacking:
            shown = ", ".join(repr(token) for token in lacking[:_SHOWN])
            return f"{len(our_ids):,} tokens against the model's {len(their_ids):,}; only one of them has {shown}{', …' * (len(lacking) > _SHOWN)}"
        token = next(token for token, number in our_ids.items() if their_ids[token] != number)
        return f"token {token!r} is {our_ids[token]} in the one and {their_ids[token]} in the model's"
    if _merges(ours) != _merges(theirs):
        return "they merge other pairs"
    for part in _SPLITTING:
        if ours.get(part) != theirs.get(part):
            return f"they split text differently ({part})"
    return None


def _ids(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Id of each token, added ones included."""
    vocabulary = tokenizer["model"]["vocab"]
    # Unigram models list tokens with their scores.
    ids = vocabulary if isinstance(vocabulary, dict) else {token: number for number, (token, _) in enumerate(vocabulary)}
    return ids | {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}


def _merges(tokenizer: dict[str, Any]) -> list[list[str]]:
    """Pairs in order; older files write a pair as one string."""
    return [pair.split(" ") if isinstance(pair, str) else pair for pair in tokenizer["model"].get("merges") or []]
