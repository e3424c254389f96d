"""AdamW and its schedule."""

import math
from collections.abc import Iterable

import torch

from instpt_assets.recipe.training import Optimization


def learning_rate(step: int, optimization: Optimization) -> float:
    """Learning rate of a step (from 0): linear warm-up to the peak, then a cosine that reaches its end at the last step."""
    warmup, last = optimization.warmup_steps, optimization.num_steps - 1
    if step < warmup:
        return optimization.learning_rate * (step + 1) / warmup
    done = (step - warmup) / (last - warmup) if last > warmup else 0.0
    end = optimization.final_learning_rate_fraction
    return optimization.learning_rate * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done)))


def build_optimizer(parameters: Iterable[torch.nn.Parameter], optimization: Optimization) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices only."""
    trained = [weight for weight in parameters if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim >= 2], "weight_decay": optimization.weight_decay},
        {"params": [weight for weight in trained if weight.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (optimization.beta1, optimization.beta2)
    return torch.optim.AdamW(groups, lr=optimization.learning_rate, betas=betas, fused=True)
