"""Filters that say what others of their layer say already are redrawn, others in each generation (RePr)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_ke.masks import Mask
from lightning_ke.naming import is_below
from lightning_ke.packing import Bits, Entry, Whole
from lightning_ke.splits.base import Split, SplitContext, check_rate
from lightning_ke.splits.ranked import highest
from lightning_ke.units import Unit, filters_dim, units


@dataclass(frozen=True)
class Overlap(Split):
    """Keep the share of the filters that overlap least with the others of their layer; the rest is redrawn.

    A filter's overlap is the sum of the absolute cosines between it and every other filter of its layer, divided by
    their number. All filters of the network are ranked together, so a layer may lose more of its filters than another,
    but never all. A filter's bias goes with it. The last layer, whose rows are outputs, keeps its own; embeddings,
    layers of several weights (attention, recurrent ones) and grouped transposed convolutions keep theirs.

    Args:
        rate: Share of the filters that is fit, in (0, 1).

    Raises:
        ValueError: If the rate lies outside (0, 1), or from `draw` if there is no layer with filters but the last.

    Source:
        "RePr: Improved Training of Convolutional Filters" (CVPR 2019), with the reset "orthogonal" and the phase
        `Dropped`.

    Example:
        >>> from torch import nn
        >>> from lightning_ke.splits import draw_mask
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with torch.no_grad():  # the second filter is nearly the sum of the other two
        ...     _ = net[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.1], [0.0, 1.0]]))
        >>> draw_mask(net, Overlap(0.6))["0.bias"]
        tensor([ True, False,  True])
    """

    rate: float = 0.7

    name: ClassVar[str] = "overlap"
    last_draw = math.inf
    reads_values = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check_rate(self.rate))  # a frozen dataclass is filled in this way

    def draw(self, context: SplitContext) -> Mask:
        """Rank the filters.

        Args:
            context: The network.
        """
        layers = [unit for unit in units(context.model) if unit.weights]
        filtering = {
            unit.canonical("weight"): unit
            for unit in layers[:-1]
            if set(unit.weights) == {"weight"} and is_below(unit.name, context.target) and _has_filters(unit)
        }
        if not filtering:
            raise ValueError(
                f"Expected the network to have filters that split {self.name!r} can compare, but no layer except the "
                "last has one weight with several of them. Use another split."
            )
        overlaps = [overlap(unit) for unit in filtering.values()]
        kept = highest(-torch.cat(overlaps), math.ceil(self.rate * sum(map(len, overlaps))))
        entries: dict[str, Entry] = {}
        for unit in units(context.model):
            for local, parameter in unit.parameters.items():
                entries[unit.canonical(local)] = Whole(tuple(parameter.shape), fit=True)
        members = torch.split_with_sizes(kept, [len(each) for each in overlaps])
        for unit, member, scores in zip(filtering.values(), members, overlaps, strict=True):
            member = member.clone()
            member[scores.argmin()] = True  # a layer without any filter would let nothing through
            for local, parameter in unit.parameters.items():
                dim = filters_dim(unit.module) if local == "weight" else 0
                if parameter.dim() and parameter.shape[dim] == len(member) and not bool(member.all()):
                    shape = [-1 if at == dim else 1 for at in range(parameter.dim())]
                    entries[unit.canonical(local)] = Bits.pack(member.view(shape).expand(parameter.shape))
        return Mask(entries)


def overlap(unit: Unit) -> Tensor:
    """How much each filter of a layer overlaps with the others.

    Args:
        unit: A layer with one weight.

    Returns:
        float32 tensor of shape (filters,) on the CPU.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> _ = torch.nn.init.ones_(layer.weight)
        >>> overlap(next(units(layer)))
        tensor([0.5000, 0.5000])
    """
    weight = unit.parameters["weight"].detach().movedim(filters_dim(unit.module), 0)
    filters = normalize(weight.flatten(1).to("cpu", torch.float32), dim=1)
    cosines = (filters @ filters.T).abs()
    return (cosines.sum(1) - cosines.diagonal()) / len(filters)


def _has_filters(unit: Unit) -> bool:
    """Whether each output channel of a layer is one slice of its weight."""
    # In a grouped transposed convolution a slice makes one channel of each group.
    grouped = filters_dim(unit.module) == 1 and getattr(unit.module, "groups", 1) > 1
    return not grouped and not isinstance(unit.module, (torch.nn.Embedding, torch.nn.EmbeddingBag))
