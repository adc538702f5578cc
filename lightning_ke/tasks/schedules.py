"""Learning-rate schedules that are told how long they have, so that a restarted one fits its generation."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from lightning_ke.arguments import whole


def cosine_with_warmup(optimizer: Optimizer, horizon: int, warmup: int = 5) -> LRScheduler:
    """Linear warm-up to the optimizer's learning rate, then half a cosine down to 0.

    Args:
        optimizer: Whose learning rate is scheduled.
        horizon: Length of the schedule, in steps of the scheduler (usually epochs).
        warmup: How many of these are spent on the way up; the last of them has the full learning rate.

    Raises:
        ValueError: If the warm-up is no whole number, or fills the whole horizon.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), the settings of the released experiments.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = cosine_with_warmup(optimizer, horizon=6, warmup=2)
        >>> rates = []
        >>> for _ in range(6):
        ...     rates.append(round(scheduler.get_last_lr()[0], 3))
        ...     optimizer.step()
        ...     scheduler.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    warmup = whole("warmup", warmup, least=0)
    if warmup >= horizon:
        raise ValueError(
            f"Expected argument `warmup` to be shorter than the schedule, {horizon}, but got {warmup}. "
            "Shorten the warm-up, or give each generation more epochs."
        )

    def factor(now: int) -> float:
        if now < warmup:
            return (now + 1) / warmup
        return (1 + math.cos(math.pi * min(now - warmup, horizon - warmup) / (horizon - warmup))) / 2

    return LambdaLR(optimizer, factor)


def one_cycle(optimizer: Optimizer, horizon: int, warmup: float = 0.3) -> LRScheduler:
    """Smith's one-cycle policy with the optimizer's learning rate as its peak.

    Args:
        optimizer: Whose learning rate is scheduled.
        horizon: Length of the schedule, in steps of the scheduler (usually batches).
        warmup: Share of the horizon that is spent on the way up.

    Raises:
        ValueError: If it is no share.

    Source:
        "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates" (arXiv 1708.07120), as
        torch has it: momentum moves the other way round, between 0.85 and 0.95.
    """
    if not 0 <= warmup <= 1:
        raise ValueError(f"Expected argument `warmup` to be a share, in [0, 1], but got {warmup}. Give 0.3, say.")
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=horizon, pct_start=warmup)
