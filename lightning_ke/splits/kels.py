"""Kernel-level split: the first kernels of the first filters are fit, and are a smaller network of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_ke.splits.channels import ChannelSplit


@dataclass(frozen=True, repr=False)
class Kels(ChannelSplit):
    """Keep the first ``ceil(rate * n)`` of the n free channels of every layer, and of the channels that feed it.

    About ``rate ** 2`` of the weights are fit. Inputs, outputs and the channels at the border of a `target` are kept
    whole; biases and norm parameters follow their channel.

    Args:
        rate: Share of the channels that is fit, in (0, 1); 0.5 if `ops` is not given either.
        ops: In place of `rate` the share of the network's operations that the slim network may need, in (0, 1): the
            largest rate is taken whose slim network needs no more. The mask's summary says which that is.
        round_to: Kept channels are rounded up to a multiple of this number where the network allows it (8 suits much
            hardware); None does not round.

    Raises:
        ValueError: If an argument is out of range, or if both `rate` and `ops` are given.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), section 3.2, kernel-level convolutional-aware splitting.

    Example:
        >>> import torch
        >>> from lightning_ke.splits import draw_mask
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3))
        >>> print(draw_mask(net, Kels(0.5), example_input=torch.zeros(1, 3, 8, 8)))
        parameter  shape    fit
        0.weight   8x3x3x3  50.0 %
        0.bias     8        50.0 %
        2.weight   5x8x3x3  50.0 %
        2.bias     5        100.0 %
        total      589      50.4 %
        >>> print(draw_mask(net, Kels(ops=0.3), example_input=torch.zeros(1, 3, 8, 8)).summary(max_rows=1))
        parameter                shape    fit
        0.weight                 8x3x3x3  25.0 %
        ... 3 parameters more
        total                    589      25.6 %
        operations 25.0 % of the dense network's, at rate 0.2 (solved for)
    """

    name: ClassVar[str] = "kels"
