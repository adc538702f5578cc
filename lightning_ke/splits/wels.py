"""Weight-level split: single weights are fit, chosen at random. The result is sparse and saves no operation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from lightning_ke.keyed_rng import keyed_generator
from lightning_ke.masks import Mask
from lightning_ke.naming import is_below
from lightning_ke.packing import Entry, Whole, pack_drawn
from lightning_ke.splits.base import Split, SplitContext, check_rate
from lightning_ke.units import units

# Random numbers that are there at once.
_PIECE = 2**20


@dataclass(frozen=True)
class Wels(Split):
    """Keep exactly ``ceil(rate * n)`` of the n entries of every weight tensor, chosen at random.

    Masked are the weights of two and more dimensions of every layer, the first and the last included. Biases, norm
    parameters and bare parameters (class token, layer scale) are wholly fit. Which entries are kept depends on the seed
    and the parameter's canonical name alone. (The reference draws each entry by itself, so that its share varies.)

    Args:
        rate: Share of the entries that is fit, in (0, 1).

    Raises:
        ValueError: If the rate lies outside (0, 1).

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), section 3.2, weight-level splitting.

    Example:
        >>> from torch import nn
        >>> from lightning_ke.splits import draw_mask
        >>> mask = draw_mask(nn.Linear(10, 7), Wels(0.25))
        >>> int(mask["weight"].sum()), int(mask["bias"].sum())  # ceil(0.25 * 70) of 70, and all of 7
        (18, 7)
    """

    rate: float = 0.5

    name: ClassVar[str] = "wels"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", check_rate(self.rate))  # a frozen dataclass is filled in this way

    def draw(self, context: SplitContext) -> Mask:
        """Draw the fit entries of one tensor after the other.

        Args:
            context: The network.
        """
        entries: dict[str, Entry] = {}
        for unit in units(context.model):
            weights = unit.weights
            for local, parameter in unit.parameters.items():
                name, shape = unit.canonical(local), tuple(parameter.shape)
                if local in weights and parameter.numel() and is_below(name, context.target):
                    draw = partial(self._member, shape, ("wels", *self._key(context), name))
                    entries[name] = pack_drawn(parameter, draw)
                else:
                    entries[name] = Whole(shape, fit=True)
        return Mask(entries)

    def _member(self, shape: tuple[int, ...], key: tuple[int | str, ...]) -> Tensor:
        size = math.prod(shape)
        return random_subset(size, math.ceil(self.rate * size), keyed_generator(*key)).view(shape)

    def _key(self, context: SplitContext) -> tuple[int, ...]:
        return (context.seed,)


@dataclass(frozen=True)
class RandomEachGeneration(Wels):
    """Keep a random share of the weights, as `Wels` does, but another one in each generation.

    Nothing lasts but what chance spares: the control that shows what a fixed fit hypothesis is worth.

    Args:
        rate: Share of the entries that is fit, in (0, 1).

    Raises:
        ValueError: If the rate lies outside (0, 1).
    """

    name: ClassVar[str] = "random-each-generation"
    last_draw = math.inf

    def _key(self, context: SplitContext) -> tuple[int, ...]:
        return (context.seed, context.generation)


def random_subset(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` of `size` positions, every such set equally likely.

    Sorting all of a large tensor's random numbers, or keeping them, would take several times its memory. So they are
    drawn in pieces, and only those close to the expected threshold are looked at: all below it are in, and of the close
    ones just as many as are missing.

    Args:
        size: Number of positions.
        count: How many of them to draw.
        generator: Where randomness comes from, on the CPU.

    Returns:
        Bool tensor of shape (size,) with exactly `count` entries True.

    Example:
        >>> random_subset(1000, 300, torch.Generator().manual_seed(0)).sum()
        tensor(300)
    """
    share = count / size
    margin = 6 * math.sqrt(share * (1 - share) / size) + 1 / size
    begun = generator.get_state()
    drawn = torch.empty(size, dtype=torch.bool, device="cpu")
    while True:
        found = []
        for start, piece in zip(range(0, size, _PIECE), torch.split(drawn, _PIECE), strict=True):
            numbers = torch.rand(len(piece), generator=generator, dtype=torch.float32, device="cpu")
            torch.lt(numbers, share - margin, out=piece)
            found.append((numbers < share + margin).logical_xor_(piece).nonzero().flatten() + start)
        close = torch.cat(found)
        missing = count - int(torch.count_nonzero(drawn))  # a sum of bools would take eight times their memory
        if 0 <= missing <= len(close):
            break
        margin = min(2 * margin, 1.0)
        generator.set_state(begun)  # the same numbers once more
    order = torch.randperm(len(close), generator=generator, device="cpu")
    drawn[close[order[:missing]]] = True
    return drawn
