"""AdamW and the schedules of its learning rate."""

import math
from collections.abc import Iterable

import torch

from instpt_assets.recipe.training import Optimization


def learning_rate(step: int, optimization: Optimization) -> float:
    """Learning rate of a step (from 0): linear warm-up to the peak, then what the schedule says.

    - `cosine`: half a cosine that reaches its end at the last step (Loshchilov and Hutter 2017).
    - `warmup_stable_decay`: the peak, and in the last `decay_steps` steps down to the end (Hu et al. 2024), linearly or as 1 - sqrt of the
      decay's part that is done (Hägele et al. 2024).
    - `constant`: the peak.
    """
    peak, end = optimization.learning_rate, optimization.final_learning_rate_fraction
    warmup, num_steps = optimization.warmup_steps, optimization.num_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < optimization.stable_steps:
        return peak
    match optimization.schedule:
        case "constant":
            left = 1.0
        case "cosine":
            last = num_steps - 1
            done = (step - warmup) / (last - warmup) if last > warmup else 0.0
            left = 0.5 * (1 + math.cos(math.pi * done))
        case "warmup_stable_decay":
            done = (step + 1 - optimization.stable_steps) / optimization.decay_steps
            left = 1 - (done if optimization.decay_shape == "linear" else math.sqrt(done))
    return peak * (end + (1 - end) * left)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups of parameters this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def build_optimizer(parameters: Iterable[torch.nn.Parameter], optimization: Optimization) -> torch.optim.AdamW:
    """AdamW with decoupled weight decay on matrices only."""
    trained = [weight for weight in parameters if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim >= 2], "weight_decay": optimization.weight_decay},
        {"params": [weight for weight in trained if weight.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (optimization.beta1, optimization.beta2)
    return torch.optim.AdamW(groups, lr=optimization.learning_rate, betas=betas, fused=True)
