"""Shrink and perturb: a redrawn weight remembers a part of what it was."""

from __future__ import annotations

import math
from typing import ClassVar

import torch

from lightning_ke.arguments import as_number
from lightning_ke.resets.base import Reset
from lightning_ke.resets.drawn import LayerReset
from lightning_ke.units import StandIn, is_norm


class ShrinkPerturb(Reset):
    """Scale the old values down and add a little of what the layer itself would draw: ``shrink * w + perturb * fresh``.

    With ``split="everything"`` that is the published method, which treats all weights alike; with any other split it is
    done to the reset hypothesis alone. Norm layers, where they are redrawn at all, start over as they were built.

    Args:
        shrink: What is left of the old value, in (0, 1].
        perturb: What is added of a fresh one, at least 0.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        "On Warm-Starting Neural Network Training" (NeurIPS 2020), which shrinks norm layers and biases, too.

    Example:
        >>> from torch import nn
        >>> from lightning_ke.redrawing import redraw
        >>> from lightning_ke.splits import draw_mask
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.weight, 5.0)
        >>> _ = redraw(layer, draw_mask(layer, "everything"), 2, reset=ShrinkPerturb(shrink=0.4, perturb=0.0))
        >>> layer.weight.tolist()
        [[2.0, 2.0]]
    """

    name: ClassVar[str] = "shrink_perturb"
    description: ClassVar[str] = "0.4 of the old value and 0.1 of one that the layer itself draws"
    keeps_undrawn: ClassVar[bool] = True
    reads_current: ClassVar[bool] = True

    def __init__(self, shrink: float = 0.4, perturb: float = 0.1) -> None:
        if not 0 < as_number(shrink) <= 1:
            raise ValueError(
                f"Expected argument `shrink` to be in (0, 1], but got {shrink!r}. It is the share of the old value "
                "that is left, such as 0.4."
            )
        if not 0 <= as_number(perturb) < math.inf:
            raise ValueError(
                f"Expected argument `perturb` to be a number of at least 0, but got {perturb!r}. It is the share of a "
                "fresh value that is added, such as 0.1."
            )
        self.shrink = float(shrink)
        self.perturb = float(perturb)

    def draw(self, stand_in: StandIn) -> None:
        """Draw one module's values.

        Args:
            stand_in: A private copy of one module.
        """
        LayerReset().draw(stand_in)
        if is_norm(stand_in.module):
            return
        for name in stand_in.parameters:
            old = stand_in.current(name)
            if old.dtype is torch.float64:  # float32 would round it
                stand_in.replace(name, stand_in.parameters[name].double())
            stand_in.parameters[name].mul_(self.perturb).add_(old, alpha=self.shrink)
