"""What a trace asks of an operator, looked up once for each."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ke.flow.registry import Rule, find_rule
from lightning_ke.flow.rules.elementwise import elementwise, is_elementwise
from lightning_ke.flow.shapes import SHAPES, ShapeFunction
from lightning_ke.flow.views import becomes, is_view

aten = torch.ops.aten

#: Factories that fill a tensor with one value: it takes whatever size its neighbours have.
_UNIFORM = frozenset(
    {
        aten.zeros.default,
        aten.ones.default,
        aten.full.default,
        aten.empty.memory_format,
        aten.scalar_tensor.default,
        aten.new_zeros.default,
        aten.new_ones.default,
        aten.new_full.default,
        aten.new_empty.default,
        aten.zeros_like.default,
        aten.ones_like.default,
        aten.full_like.default,
        aten.empty_like.default,
        aten.rand.default,
        aten.randn.default,
    }
)

#: Multiplications by a number that a network's code may have computed from a width.
SCALINGS = frozenset(
    {aten.mul.Scalar, aten.mul.Tensor, aten.div.Scalar, aten.div.Tensor, aten.mul_.Tensor, aten.div_.Tensor}
)

#: Operations that pick entries of their first argument: one value everywhere stays one, whatever the numbers.
_PICKS = frozenset({aten.index.Tensor, aten.index_select.default, aten.gather.default})


def as_number(value: Any) -> float | None:
    """The number by which an operation multiplies, None if it is a tensor or not known without data.

    Args:
        value: Its second argument; code may have made a tensor of the number (``torch.sqrt(torch.tensor(width))``).
    """
    if not isinstance(value, Tensor):
        return float(value)
    return value.item() if value.dim() == 0 and not value.is_meta and value.is_floating_point() else None


class Kind(NamedTuple):
    """What a trace asks of an operator at each of its operations; looked up once, because torch hashes them slowly.

    Args:
        rule: How channels flow through it.
        shape: How the shape of its result is computed by the shortest way.
        uniform: Whether it fills a tensor with one value.
        scaling: Whether it multiplies, perhaps by a number.
        view: Whether its results share their memory with its first argument.
        becomes: The operation that returns the view which it makes of its first argument in place, if it does that.
        writes: Whether it changes an argument in place.
        joins: Whether it puts tensors side by side.
        picks: Whether it takes entries of its first argument by their numbers.
    """

    rule: Rule | None
    shape: ShapeFunction | None
    uniform: bool
    scaling: bool
    view: bool
    becomes: torch._ops.OpOverload | None
    writes: bool
    joins: bool
    picks: bool


def kind_of(func: torch._ops.OpOverload) -> Kind:
    """Look up what a trace asks of an operator.

    Args:
        func: The operator.
    """
    return Kind(
        rule=find_rule(func) or (elementwise if is_elementwise(func) else None),
        shape=SHAPES.get(func),
        uniform=func in _UNIFORM,
        scaling=func in SCALINGS,
        view=is_view(func),
        becomes=becomes(func),
        writes=func._schema.is_mutable,
        joins=func is aten.cat.default,
        picks=func in _PICKS,
    )
