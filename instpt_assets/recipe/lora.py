"""Recipe of low-rank adapters: continue from a base model with a small share of its weights."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from instpt_assets.recipe.base import Part

Module = Annotated[str, StringConstraints(min_length=1)]


class Lora(Part):
    """Low-rank adapters (LoRA, Hu et al. 2021) on the linear layers of a base model whose own weights stay as they are.

    To a layer's matrix W [out, in] is added alpha / rank * B A, of which A [rank, in] and B [out, rank] are trained, in float32; B begins at 0.
    The frozen weights are held in `optimization.dtype`, which is what the forward pass sees of them in a full training too: with bfloat16 a
    model of 7 billion parameters takes 14 GB, and gradients and the optimizer's state exist for the adapters alone. So it fits on one GPU of
    24 GB where a full training takes about 112 GB (16 bytes a parameter). Adapters want a learning rate about ten times that of a full
    training (1e-4 to 2e-4 for 7 billion parameters).
    """

    rank: int = Field(default=16, ge=1)
    """Rank r of the adapters."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapters' product is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on what the adapters read."""
    target_modules: Literal["all_linear"] | Annotated[tuple[Module, ...], Field(min_length=1)] = "all_linear"
    """Layers that get an adapter: all linear ones but the output head, or those of these names (`q_proj`, `v_proj`, …)."""
    trained_modules: tuple[Module, ...] = ()
    """Modules that are trained in full beside the adapters, by name (`embed_tokens`, `lm_head`); needed where the data has tokens that the base model never learned."""
