"""Kernel-level split by importance: the strongest channels are fit, and are a smaller network of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from lightning_ke.splits.channels import ChannelSplit
from lightning_ke.units import units


@dataclass(frozen=True, repr=False)
class Importance(ChannelSplit):
    """Keep the strongest ``ceil(rate * n)`` of the n free channels of every layer, where `Kels` keeps the first.

    A channel's strength is its share of the squared weights of every tensor that carries it, summed: the filters that
    produce it, the kernels that read it, and the scale of its norm. A residual stream's channels are therefore judged
    by all the layers that write to or read from it. Shares make each tensor count alike, whatever its size and scale.

    In a training the channels are chosen when the second generation opens, from the weights that the first one trained,
    and stay chosen. The mask of the first generation is provisional, read off the first weights.

    Args:
        rate: Share of the channels that is fit, in (0, 1); 0.5 if `ops` is not given either.
        ops: As for `Kels`.
        round_to: As for `Kels`.

    Raises:
        ValueError: If an argument is out of range, or if both `rate` and `ops` are given.

    Source:
        Norms of filters as in "Pruning Filters for Efficient ConvNets" (ICLR 2017), over all tensors that share a
        channel as in "DepGraph: Towards Any Structural Pruning" (CVPR 2023); used here in place of the order of the
        channels in kernel-level splitting ("Knowledge Evolution in Neural Networks", CVPR 2021).

    Example:
        >>> import torch
        >>> from lightning_ke.splits import draw_mask
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> with torch.no_grad():
        ...     net[0].weight[3] *= 10  # the last channel is the strongest, then the second
        ...     net[2].weight[0] = torch.tensor([0.0, 2.0, 0.0, 2.0])
        >>> draw_mask(net, Importance(0.5), example_input=torch.zeros(1, 2))["2.weight"]
        tensor([[False,  True, False,  True]])
    """

    name: ClassVar[str] = "importance"
    last_draw = 2
    reads_values = True

    def importance(self, model: nn.Module) -> Mapping[str, Tensor]:
        """Each entry's share of its tensor's squared weights.

        Args:
            model: The network.
        """
        return _shares_of_squares(model)


def _shares_of_squares(model: nn.Module) -> dict[str, Tensor]:
    """Each entry's share of its tensor's squared weights, for the weights of layers and norms, on the CPU."""
    shares = {}
    for unit in units(model):
        held = {"weight": unit.parameters["weight"]} if unit.kind == "norm" and "weight" in unit.parameters else {}
        for local, weight in {**unit.weights, **held}.items():
            squares = weight.detach().to("cpu").float().square()
            total = float(squares.sum())
            if total > 0:
                shares[unit.canonical(local)] = squares / total
    return shares
