"""Recipe of the arms: mixtures of components."""

from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import LATER, Name, Part

Corpora = tuple[str, ...] | None
"""Names of corpora; None: all."""


class Component(Part):
    """One component of a mixture."""

    component: Literal["corpus", "raw", "augmented", "tuning", "general"]
    """`corpus`: every document once (augmented if `pair_set` chose it, else raw); `raw`: raw documents (without those that an `augmented` component of the same arm holds); `augmented`: the augmented texts of `pair_set` alone; `tuning`: the tuning collection laid out as augmented texts are; `general`: the general instructions."""
    pair_set: Name | None = None
    """Of `augmented`: the pair set whose texts it takes. Of `corpus`: the pair set whose augmented texts replace the raw documents that it chose."""
    corpora: Annotated[tuple[Name, ...] | None, LATER] = None
    """Of `corpus`, `raw` and `augmented`: the corpora that it takes; by default all. So several may stand in a mixture, each with its own share."""
    ratio: float | None = Field(default=None, gt=0, le=1)
    """Share of the tokens trained on; either this or `repetition`, or neither: then the component fills what the others leave of the budget."""
    repetition: float | None = Field(default=None, gt=0)
    """How often the component is passed over."""
    max_repetition: float = Field(default=100.0, ge=1)
    """A component that would have to be passed over more often stops the run."""

    @model_validator(mode="after")
    def _fields(self) -> Self:
        if self.pair_set is not None and self.component not in ("corpus", "augmented"):
            raise ValueError(f"pair_set goes with component 'corpus' and 'augmented', not '{self.component}'")
        if self.pair_set is None and self.component == "augmented":
            raise ValueError("component 'augmented' needs a pair_set: whose texts it takes")
        if self.corpora is not None:
            if not self.holds_documents:
                raise ValueError(f"corpora goes with components 'corpus', 'raw' and 'augmented', not '{self.component}'")
            if not self.corpora or len(set(self.corpora)) != len(self.corpora):
                raise ValueError(f"corpora: name each corpus once, and at least one: {list(self.corpora)}; leave it out to take all")
        if self.ratio is not None and self.repetition is not None:
            raise ValueError("give ratio or repetition, not both")
        if self.repetition is not None and self.repetition > self.max_repetition:
            raise ValueError(f"repetition {self.repetition:g} is more than max_repetition {self.max_repetition:g}")
        return self

    @property
    def fills(self) -> bool:
        """Whether it takes what the others leave of the budget."""
        return self.ratio is None and self.repetition is None

    @property
    def holds_documents(self) -> bool:
        """Whether it takes documents of corpora, by shards."""
        return self.component in ("corpus", "raw", "augmented")

    @property
    def label(self) -> str:
        """What people read: its kind, its pair set, its corpora."""
        pair_set = f" ({self.pair_set})" if self.pair_set else ""
        return f"{self.component}{pair_set}" + (f" of {', '.join(self.corpora)}" if self.corpora else "")

    def takes(self, shard: str) -> bool:
        """Whether the shard belongs to its corpora."""
        return self.holds_documents and (self.corpora is None or shard.split("--")[0] in self.corpora)


class Arm(Part):
    """One side of the comparison."""

    mixture: tuple[Component, ...] = Field(min_length=1)
    """What it is pre-trained on."""
    shards: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The shards that it takes; by default all that are registered."""
    allow_missing_shards: bool = False
    """Go on without registered shards that are not materialized yet (they are listed); else stop."""

    @model_validator(mode="after")
    def _amounts(self) -> Self:
        ratio = sum(component.ratio or 0 for component in self.mixture)
        filling = [component.label for component in self.mixture if component.fills]
        if len(filling) > 1:
            raise ValueError(f"components {', '.join(filling)} have neither ratio nor repetition: only one can fill what the others leave")
        if filling and ratio > 1 - 1e-6:
            raise ValueError(f"ratios add up to {ratio:g} and leave nothing to '{filling[0]}', which fills what the others leave")
        if not filling:
            if any(component.repetition is not None for component in self.mixture):
                raise ValueError("exactly one component must leave out ratio and repetition, to fill the token budget; or all have a ratio")
            if abs(ratio - 1) > 1e-6:
                raise ValueError(f"ratios add up to {ratio:g}, not 1")
        return self

    @model_validator(mode="after")
    def _each_document_once(self) -> Self:
        for (index, one), (other_index, other) in combinations(enumerate(self.mixture), 2):
            if {one.component, other.component} == {"raw", "augmented"}:
                continue  # raw leaves out what augmented holds
            same = one.component == other.component
            if not (one.holds_documents and other.holds_documents):
                if same:
                    raise ValueError(f"mixture.{index} and mixture.{other_index}: component '{one.component}' stands there twice")
            elif one.corpora is None or other.corpora is None or set(one.corpora) & set(other.corpora):
                raise ValueError(
                    f"mixture.{index}.corpora ({_corpora(one)}) and mixture.{other_index}.corpora ({_corpora(other)}) overlap: '{one.label}' and "
                    f"'{other.label}' would hold the same documents, and each stands once in an arm; name corpora that are not the same"
                )
        return self

    @model_validator(mode="after")
    def _shards_are_taken(self) -> Self:
        documents = [component for component in self.mixture if component.holds_documents]
        idle = [shard for shard in self.shards or () if documents and not any(component.takes(shard) for component in documents)]
        if idle:
            raise ValueError(f"shards: no component's corpora hold {', '.join(idle)}: take them off the list")
        empty = [component.label for component in documents if self.shards and not any(map(component.takes, self.shards))]
        if empty:
            raise ValueError(f"shards: none belongs to the corpora of {', '.join(map(repr, empty))}")
        return self

    @property
    def pair_sets(self) -> tuple[str, ...]:
        """The pair sets whose texts it takes."""
        return tuple(dict.fromkeys(component.pair_set for component in self.mixture if component.pair_set))

    @property
    def takes_instructions(self) -> bool:
        """Whether the mixture names the tuning data or the general instructions."""
        return not all(component.holds_documents for component in self.mixture)

    def shard_assets(self, *, held_out: bool) -> dict[str, Corpora]:
        """The assets of which it takes shards, and of which corpora.

        Args:
            held_out: whether the recipe holds documents out: they are chosen from raw ones, of the arm's corpora, in every arm.
        """
        raw = [component for component in self.mixture if component.component in ("corpus", "raw")]
        if held_out:
            raw = [component for component in self.mixture if component.holds_documents] or [Component(component="raw")]
        assets = {"tokenized_raw": raw}
        for pair_set in self.pair_sets:
            assets[f"{pair_set}/tokenized_augmented"] = [component for component in self.mixture if component.pair_set == pair_set]
        return {asset: _united(components) for asset, components in assets.items() if components}


def _united(components: list[Component]) -> Corpora:
    if any(component.corpora is None for component in components):
        return None
    return tuple(dict.fromkeys(name for component in components for name in component.corpora or ()))


def _corpora(component: Component) -> str:
    return "all" if component.corpora is None else ", ".join(component.corpora)
