"""Recipe of deduplication: which documents are taken for copies of others."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import LATER, Part


class Deduplication(Part):
    """Duplicates over all shards: equal texts, and near-duplicates by MinHash-LSH on word shingles (Broder 1997). Ids are always made unique."""

    exact: Annotated[bool, LATER] = True
    """Whether documents with the text of an earlier one are removed."""
    near: Annotated[bool, LATER] = True
    """Whether documents are removed that resemble an earlier one by `threshold`; without it no signature is computed."""
    num_permutations: int = Field(default=128, ge=16, le=1024)
    """Length of a MinHash signature."""
    shingle_words: int = Field(default=5, ge=1)
    """Words a shingle."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Estimated Jaccard similarity from which two documents are duplicates."""
    seed: int = Field(default=1, ge=0, lt=1 << 64)
    """Seed of the permutations."""

    @model_validator(mode="after")
    def _applies(self) -> Self:
        of_signatures = ("num_permutations", "shingle_words", "threshold", "seed")
        given = [name for name in of_signatures if getattr(self, name) != type(self).model_fields[name].default]
        if not self.near and given:
            raise ValueError(f"{' and '.join(given)}: for near-duplicates, and near is off")
        if self.near and not self.exact:
            raise ValueError(
                "exact: equal texts resemble each other by any threshold, so that near removes them too: set near: false as well"
            )
        return self
