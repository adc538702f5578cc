"""Weight-level splits that keep the entries with the highest score."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.naming import is_below, named_parameters
from lightning_ke.packing import Bits, Entry, Whole
from lightning_ke.splits.base import Split, SplitContext, check_rate
from lightning_ke.units import units


@dataclass(frozen=True)
class Ranked(Split):
    """Keep the share of the weights with the highest score, by a new ranking in every generation.

    Ranked are the weights of two and more dimensions of every layer. Biases, norm parameters, bare parameters and
    weights without a score are wholly fit. Of equal scores the first in the tensor are kept.

    Args:
        rate: Share of the entries that is fit, in (0, 1).

    Raises:
        ValueError: If the rate lies outside (0, 1).
    """

    rate: float = 0.5

    #: True ranks the entries of all tensors against each other, False those of each tensor.
    across_tensors: ClassVar[bool] = False
    last_draw = math.inf
    reads_values = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check_rate(self.rate))  # a frozen dataclass is filled in this way

    @abstractmethod
    def scores(self, context: SplitContext) -> Mapping[str, Tensor]:
        """Score the entries of each weight.

        Args:
            context: The network, and what was gathered of it.

        Returns:
            A tensor of the weight's shape for every weight that can be scored, by canonical name.
        """

    def draw(self, context: SplitContext) -> Mask:
        """Rank the weights.

        Args:
            context: The network, and what was gathered of it.
        """
        scores = self.scores(context)
        return ranked_mask(context.model, scores, self.rate, target=context.target, across_tensors=self.across_tensors)


def ranked_mask(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    rate: float,
    *,
    target: str | None = None,
    across_tensors: bool = False,
) -> Mask:
    """Keep exactly ``ceil(rate * n)`` of n scored entries: those with the highest scores.

    Args:
        model: The network.
        scores: The score of every entry of a weight, by canonical name; other weights are wholly fit. NaN is the lowest
            score of all.
        rate: Share of the entries that is fit, in (0, 1).
        target: Canonical name of the submodule to which the ranking is limited.
        across_tensors: True if n counts the entries of all tensors, False if those of each.

    Example:
        >>> layer = nn.Linear(4, 1)
        >>> ranked_mask(layer, {"weight": torch.tensor([[1.0, 3.0, 2.0, 3.0]])}, rate=0.5)["weight"]
        tensor([[False,  True, False,  True]])
    """
    ranked = {}
    for unit in units(model):
        for local, weight in unit.weights.items():
            name = unit.canonical(local)
            if name in scores and weight.numel() and is_below(name, target):
                ranked[name] = _finite(scores[name])
    sizes = {name: values.numel() for name, values in ranked.items()}
    if across_tensors and ranked:
        chosen = highest(torch.cat(list(ranked.values())), math.ceil(rate * sum(sizes.values())))
        members = dict(zip(sizes, torch.split_with_sizes(chosen, list(sizes.values())), strict=True))
    else:
        members = {name: highest(values, math.ceil(rate * values.numel())) for name, values in ranked.items()}
    entries: dict[str, Entry] = {}
    for name, parameter in named_parameters(model):
        shape = tuple(parameter.shape)
        entries[name] = Bits.pack(members[name].view(shape)) if name in members else Whole(shape, fit=True)
    return Mask(entries)


def highest(scores: Tensor, count: int) -> Tensor:
    """Choose the entries with the highest scores; of equal ones the first.

    Args:
        scores: Float tensor of shape (n,) without NaN.
        count: How many to choose, from 1 to n.

    Returns:
        Bool tensor of shape (n,) with exactly `count` entries True.

    Example:
        >>> highest(torch.tensor([2.0, 1.0, 2.0, 2.0]), count=2)
        tensor([ True, False,  True, False])
    """
    # A selection and not a sort, which would take several times the memory.
    threshold = scores.kthvalue(len(scores) - count + 1).values
    chosen = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def _finite(scores: Tensor) -> Tensor:
    # On the CPU, whose selection is the same everywhere and allowed in deterministic runs.
    return scores.detach().flatten().to("cpu", torch.float32).nan_to_num(-math.inf)
