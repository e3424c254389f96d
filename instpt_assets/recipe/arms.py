"""Recipe of the arms: mixtures of components."""

from typing import Literal, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import Name, Part


class Component(Part):
    """One component of a mixture."""

    component: Literal["corpus", "tuning", "general"]
    """`corpus`: every document once (augmented if `pair_set` chose it, else raw); `tuning`: the tuning collection laid out as augmented texts are; `general`: the general instructions."""
    pair_set: Name | None = None
    """Of `corpus`: the pair set whose augmented texts replace the raw documents that it chose."""
    ratio: float | None = Field(default=None, gt=0, le=1)
    """Share of the token budget; either all components of a mixture have one, or none."""
    repetition: float | None = Field(default=None, gt=0)
    """How often the component is passed over; at most one component leaves it out, and fills the budget."""
    max_repetition: float = Field(default=100.0, ge=1)
    """A component that would have to be passed over more often stops the run."""

    @model_validator(mode="after")
    def _fields(self) -> Self:
        if self.pair_set is not None and self.component != "corpus":
            raise ValueError(f"pair_set goes with component 'corpus', not '{self.component}'")
        if self.ratio is not None and self.repetition is not None:
            raise ValueError("give ratio or repetition, not both")
        return self


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
        kinds = [c.component for c in self.mixture]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"a component stands twice in the mixture: {kinds}")
        ratios = [c.ratio for c in self.mixture if c.ratio is not None]
        if ratios:
            if len(ratios) != len(self.mixture):
                raise ValueError("either all components of a mixture have a ratio, or none")
            if abs(sum(ratios) - 1) > 1e-6:
                raise ValueError(f"ratios add up to {sum(ratios):g}, not 1")
        elif sum(c.repetition is None for c in self.mixture) != 1:
            raise ValueError("without ratios, exactly one component must leave out repetition: it fills the token budget")
        return self

    @property
    def pair_set(self) -> str | None:
        """The pair set that the arm's corpus component takes, if any."""
        return next((c.pair_set for c in self.mixture if c.pair_set), None)

    def uses(self, component: str) -> bool:
        """Whether the mixture names the component."""
        return any(c.component == component for c in self.mixture)
