"""Splits that redraw whole layers and need no name of a block: all of them, or the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lightning_ke.masks import Mask
from lightning_ke.naming import is_below, named_modules
from lightning_ke.packing import Whole
from lightning_ke.splits.base import Split, SplitContext
from lightning_ke.units import Unit, is_norm, own_reset, units


@dataclass(frozen=True)
class Everything(Split):
    """Redraw every layer, weights and biases; only norm and bare parameters are fit.

    There is no fit hypothesis to speak of, so ``score_fit=False`` saves its scores. For resets that keep something of
    the old values themselves (``reset="shrink_perturb"``), for generations that only hand on what they teach, and as
    the control in which nothing survives.

    Source:
        "On Warm-Starting Neural Network Training" (NeurIPS 2020) with the reset "shrink_perturb".

    Example:
        >>> from torch import nn
        >>> from lightning_ke.splits import draw_mask
        >>> draw_mask(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), Everything()).fit_share == 6 / 15
        True
    """

    name: ClassVar[str] = "everything"

    def draw(self, context: SplitContext) -> Mask:
        """Mark every layer.

        Args:
            context: The network.
        """
        return _without(context, _layers(context))


@dataclass(frozen=True)
class LastLayer(Split):
    """Redraw the last layer, weights and bias: the one that the network registers last. All else is fit.

    Made for fine-tuning; the optimizer's state of the rest is worth keeping (``optimizer="keep"``).

    Raises:
        ValueError: From `draw`, if the last layer shares its weight with an earlier one.

    Source:
        "RIFLE: Backpropagation in Depth for Deep Transfer Learning through Re-Initializing the Fully-connected LayEr"
        (ICML 2020).

    Example:
        >>> from torch import nn
        >>> from lightning_ke.splits import draw_mask
        >>> mask = draw_mask(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), LastLayer())
        >>> print(*(name for name, member in mask.items() if not member.any()))
        2.weight 2.bias
    """

    name: ClassVar[str] = "last-layer"

    def draw(self, context: SplitContext) -> Mask:
        """Mark the last layer.

        Args:
            context: The network.
        """
        last = _layers(context)[-1:]
        own = {id(parameter) for unit in last for parameter in unit.parameters.values()}
        for name, module in reversed([*named_modules(context.model)]):
            weights = [p for p in module._parameters.values() if p is not None and p.ndim >= 2]
            if own_reset(module) is None or is_norm(module) or not weights or not is_below(name, context.target):
                continue
            if not own.issuperset(map(id, weights)):
                raise ValueError(
                    f"Expected the last layer to have a weight of its own for split {self.name!r}, but `{name}` shares "
                    "one with an earlier layer, which would be redrawn, too. Use split 'layers' with a `start`, or "
                    "build the network without tied weights."
                )
            break
        return _without(context, last)


def _layers(context: SplitContext) -> list[Unit]:
    return [unit for unit in units(context.model) if unit.kind == "layer" and is_below(unit.name, context.target)]


def _without(context: SplitContext, redrawn: list[Unit]) -> Mask:
    """The mask in which all but some layers is fit."""
    modules = {id(unit.module) for unit in redrawn}
    return Mask(
        {
            unit.canonical(local): Whole(tuple(parameter.shape), fit=id(unit.module) not in modules)
            for unit in units(context.model)
            for local, parameter in unit.parameters.items()
        }
    )
