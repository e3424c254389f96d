"""Tuning data in a mixture: contexts with their pairs, laid out as augmented texts are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from instpt_assets.augmentation.layouts import Shot, lay_out
from instpt_assets.augmentation.screening import screen
from instpt_assets.augmentation.tables import batches, column, pair_lists
from instpt_assets.recipe.synthesis import Layouts


def lay_out_tuning(collection_table: Path, layouts: Layouts, *, split: Literal["train", "held_out"] = "train") -> Iterator[tuple[str, str]]:
    """The examples of one split of a `tuning_collection` table as (example_id, text), in order, each a text of one shot.

    Pairs that may not stand in a text (`screening`; what overlaps with evaluation examples the collection has left out already) are not in
    it; a context without any other stands alone.
    """
    for batch in batches([collection_table], ("example_id", "split", "context", "pairs")):
        names = ("example_id", "split", "context")
        for example_id, of, context, pairs in zip(*(column(batch, name) for name in names), pair_lists(batch.column("pairs")), strict=True):
            if of == split:
                kept = [pair for pair, dropped in zip(pairs, screen(pairs), strict=True) if dropped is None]
                yield example_id, lay_out([Shot(context, kept)], layouts, key=f"tuning\0{example_id}").text
