"""Factors that attention loses with its channels, folded into the parameters before them.

Scaled dot products divide by the square root of a head's width. Code that takes the width from a tensor's shape divides
by less in the slim network; the weights that make the queries and keys are multiplied by what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import copy_inputs, quiet_world, run, with_data, without_data
from lightning_ke.flow.kinds import SCALINGS, as_number
from lightning_ke.flow.labels import Layer
from lightning_ke.flow.mode import OperationMode
from lightning_ke.flow.trace import Trace
from lightning_ke.flow.variables import read, write
from lightning_ke.sharding import has_shards
from lightning_ke.structure import Structure

if TYPE_CHECKING:
    from lightning_ke.splits.base import Call


def lost_factors(
    model: nn.Module,
    calls: Sequence[Call],
    traced: Trace,
    structure: Structure,
    kept: NDArray[np.bool_],
) -> dict[str, tuple[int, Tensor]]:
    """Find the numbers that the slim network's code computes otherwise, and what makes up for them.

    Args:
        model: The dense network.
        calls: How it is run.
        traced: What the flow learned.
        structure: What is kept.
        kept: Says of every variable whether it is kept.

    Returns:
        For each parameter to be multiplied the dimension and the factors of its kept entries along it.
    """
    factors = np.ones(traced.variables.count)
    slim = _slim_scalars(model, calls, structure)
    if slim is None or [operator for operator, _, _ in traced.scalars] != [operator for operator, _ in slim]:
        return {}
    for (operator, dense, layers), (_, now) in zip(traced.scalars, slim, strict=True):
        cut_layers = [layer for layer in layers if not read(kept, layer.entries).all()]
        if dense != now and now and dense and cut_layers:
            inverse = operator.overloadpacket not in _MULTIPLICATIONS
            write(factors, max(cut_layers, key=_last).entries, now / dense if inverse else dense / now)
    # Once more for what follows a companion: the bias of what was concatenated with keys.
    before: NDArray[np.float64] | None = None
    while before is None or not np.array_equal(before, factors):
        before = factors.copy()
        for added, base in traced.companions:
            scaled = read(factors, base)
            if bool((scaled != 1).any()):
                write(factors, added, scaled)
    found: dict[str, tuple[int, Tensor]] = {}
    for name, leaf in traced.leaves.items():
        for dim, variables in enumerate(leaf.dims):
            if variables is None or dim in leaf.reads:
                continue
            own = read(factors, variables)[read(kept, variables)]
            if bool((own != 1).any()):
                found[name] = (dim, torch.from_numpy(own))
    return found


_MULTIPLICATIONS = frozenset({torch.ops.aten.mul, torch.ops.aten.mul_})


def _last(layer: Layer) -> int:
    """The last dimension along which a layer has channels: learned queries may be fewer, before their channels."""
    return layer.dims[-1]


class _Scalars(OperationMode):
    """Writes down every multiplication by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch._ops.OpOverload, float]] = []

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """See `OperationMode`."""
        if func in SCALINGS and (number := as_number(args[1])) is not None:
            self.found.append((func, number))
        return run(func, args, kwargs)


def runs_slim(model: nn.Module, calls: Sequence[Call], structure: Structure) -> bool:
    """Whether a network's code runs once it is cut; nothing is said of what it computes.

    Args:
        model: The dense network.
        calls: How it is run.
        structure: What is kept.
    """
    return _slim_scalars(model, calls, structure) is not None


def _slim_scalars(
    model: nn.Module, calls: Sequence[Call], structure: Structure
) -> list[tuple[torch._ops.OpOverload, float]] | None:
    from lightning_ke.slim.cut import shrink  # which rests on this package

    # Its code may look at values, such as those of a mask; of a sharded network no rank holds them all.
    for convert in (without_data,) if has_shards(model) else (without_data, with_data):
        network = private_copy(naming.unwrap(model), convert)
        network.eval()
        scalars = _Scalars()
        # A network that cannot run slim has a mask all the same; extraction will say why.
        with suppress(Exception):
            shrink(network, structure)
            modules = dict(naming.named_modules(network))
            for call in calls:
                args, kwargs = copy_inputs((tuple(call.args), dict(call.kwargs)), convert)
                with quiet_world(), scalars:
                    modules[call.module](*args, **kwargs)
            return scalars.found
    return None
