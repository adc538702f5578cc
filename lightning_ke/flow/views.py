"""Writing through views: when a slice of a tensor is written to, the tensor behind it carries the new labels there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_ke.flow.labels import Labels, Layer, compact, pinned
from lightning_ke.flow.leaves import Leaf
from lightning_ke.flow.variables import Variables

aten = torch.ops.aten

#: Operations whose result shares its memory with their first argument.
_VIEWS = frozenset(
    {
        aten.view,
        aten.permute,
        aten.transpose,
        aten.t,
        aten.expand,
        aten.squeeze,
        aten.unsqueeze,
        aten.slice,
        aten.select,
        aten.split,
        aten.split_with_sizes,
        aten.unbind,
        aten.diagonal,
        aten.alias,
        aten.detach,
    }
)

#: Operations that make a tensor a view of what it was, and those that return that view.
_IN_PLACE = {
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.unsqueeze_.default: aten.unsqueeze.default,
    aten.transpose_.default: aten.transpose.int,
    aten.t_.default: aten.t.default,
    aten.as_strided_.default: aten.as_strided.default,
}


#: Stands for positions of which nothing is known yet.
_UNKNOWN = -1


class View(NamedTuple):
    """How a tensor was cut out of another one.

    Args:
        base: The tensor behind it.
        func: The operator that returned the view.
        args: Its positional arguments after the first.
        kwargs: Its keyword arguments.
        position: The position of the view among the results, None if it is the only one.
    """

    base: Tensor
    func: torch._ops.OpOverload
    args: Sequence[Any]
    kwargs: dict[str, Any]
    position: int | None

    def part(self, full: Tensor) -> Tensor:
        """The same part of another tensor.

        Args:
            full: A tensor of the shape of `base`.
        """
        found = self.func(full, *self.args, **self.kwargs)
        part: Tensor = found if self.position is None else found[self.position]
        return part


def is_view(func: torch._ops.OpOverload) -> bool:
    """Whether an operation's results share their memory with its first argument.

    Args:
        func: The operator.
    """
    return func.overloadpacket in _VIEWS


def becomes(func: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The operation that returns what a tensor becomes in place (``squeeze`` for ``squeeze_``), None if it stays one.

    Args:
        func: The operator.
    """
    return _IN_PLACE.get(func)


def written(
    view: View, own: Labels | Leaf, new: Labels | Leaf, shape: Sequence[int], variables: Variables
) -> Labels | None:
    """The labels of a tensor after a view of it was written to; None if labels cannot say it, so that all is kept.

    Args:
        view: The view.
        own: Labels of the tensor behind it, before.
        new: Labels of the view, after.
        shape: Shape of the view.
        variables: Where those of channels that nothing was written to yet come from.
    """
    if len(own.layers) > 1 or len(new.layers) > 1:
        return None
    base = view.base
    if own.uniform and not own.layers and new.layers:
        full = torch.full(base.shape, _UNKNOWN, dtype=torch.int32)
        part = view.part(full)
        part.copy_(new.layers[0].over(part))
        return Labels((_completed(full, variables),), weight=own.weight and new.weight)
    before = own.layers[0] if own.layers else pinned((1,) * base.dim())
    after = new.layers[0] if new.layers else pinned((1,) * len(shape))
    full = before.over(base).clone()
    part = view.part(full)
    part.copy_(after.over(part))
    layer = compact(full, search=True)
    return Labels((layer,) if layer.size > 1 else (), weight=own.weight and new.weight)


def _completed(full: Tensor, variables: Variables) -> Layer:
    """The layer of a tensor that held one value before a part of it was written to: the rest goes along."""
    for dim in range(full.dim()):
        known = full.amax(dim, keepdim=True)
        if bool(((full == known) | (full == _UNKNOWN)).all()):
            full = known
    unknown = full == _UNKNOWN
    new = variables.new(int(unknown.sum()))
    full[unknown] = torch.arange(new.start, new.stop, dtype=torch.int32)
    return compact(full, search=True)
