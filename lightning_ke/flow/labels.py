"""The labels that travel beside a tensor: which channel variable each of its positions belongs to.

A layer is an integer tensor with as many dimensions as the tensor it labels. Along a dimension that carries channels it
has the tensor's size, along all others it has size one, so labels of a 224 px activation are as small as its channels.
A position is kept where the variables of all its layers are kept. A tensor without layers is always kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Labels(NamedTuple):
    """What is known of the positions of one tensor.

    Args:
        layers: The integer tensors described above; usually none or one.
        uniform: True for a tensor that holds one value everywhere and takes its size from others (``zeros_like``, an
            initial hidden state): it fits to channels of any kind.
        weight: True if the tensor was computed from parameters and buffers alone.
        fixed: True if it was computed from buffers alone: a weight that is no parameter produces no channels to choose.
        loose: Dimensions along which one value was expanded to whatever size the neighbours have.
        heads: From the first product of an attention until its heads are put side by side again: the variables of the
            channels that the last product summed over (no entries if it summed over none).
    """

    layers: tuple[Tensor, ...] = ()
    uniform: bool = False
    weight: bool = False
    fixed: bool = False
    loose: frozenset[int] = frozenset()
    heads: Tensor | None = None


def varying(layer: Tensor) -> tuple[int, ...]:
    """The dimensions along which a layer carries channels.

    Args:
        layer: One layer of some labels.
    """
    return tuple([dim for dim, size in enumerate(layer.shape) if size > 1])


def along(layers: Sequence[Tensor], dim: int) -> list[Tensor]:
    """The layers that carry channels along a dimension.

    Args:
        layers: Layers of one tensor.
        dim: A dimension, not negative.
    """
    return [layer for layer in layers if layer.shape[dim] > 1]


def compact(layer: Tensor, *, search: bool) -> Tensor:
    """Reduce a full-sized integer tensor to a layer.

    Args:
        layer: Integer tensor of the labelled tensor's shape; dimensions of stride zero carry no channels.
        search: Look also for dimensions that carry none because all their entries are equal (after a copying move).
    """
    for dim in range(layer.dim()):
        if layer.shape[dim] > 1:
            first = layer.narrow(dim, 0, 1)
            if layer.stride(dim) == 0 or (search and torch.equal(layer, first.expand_as(layer))):
                layer = first
    return layer


def reshaped(layer: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """The layer of a reshaped tensor.

    Args:
        layer: A layer of the tensor.
        before: The tensor's shape.
        after: Its new shape.
    """
    sizes, moved_sizes = list(before), list(after)
    # Where the shapes meet, what lies between is reshaped on its own; without channels there, it stays without.
    for dims, new_dims in _blocks(before, after):
        if all(layer.shape[dim] == 1 for dim in dims):
            for dim in dims:
                sizes[dim] = 1
            for dim in new_dims:
                moved_sizes[dim] = 1
    full = layer.expand(sizes)
    moved = full.reshape(moved_sizes)
    return compact(moved, search=moved.data_ptr() != full.data_ptr())


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """The smallest runs of dimensions of two shapes that hold equally many entries."""
    if 0 in before:
        return []
    blocks = []
    one = other = 0
    while one < len(before) or other < len(after):
        begin, new_begin = one, other
        size, new_size = 1, 1
        while size != new_size or (one, other) == (begin, new_begin):
            if (size <= new_size and one < len(before)) or other == len(after):
                size *= before[one]
                one += 1
            else:
                new_size *= after[other]
                other += 1
        blocks.append((range(begin, one), range(new_begin, other)))
    return blocks


def distinct_rows(rows: Tensor) -> Tensor:
    """The rows of a matrix without those that windows or batches repeat, in the order of their first appearance.

    Args:
        rows: Integer matrix.
    """
    heads = rows[:, 0].numpy()
    first, inverse = np.unique(heads, return_index=True, return_inverse=True)[1:]
    if len(first) == len(heads) or not torch.equal(rows[torch.from_numpy(first[inverse])], rows):
        return rows
    return rows[torch.from_numpy(np.sort(first))]


def place(variables: Tensor, dim: int, ndim: int) -> Tensor:
    """A layer that carries the given variables along one dimension.

    Args:
        variables: int64 tensor of shape (size,).
        dim: The dimension that carries them.
        ndim: Number of dimensions of the labelled tensor.
    """
    if ndim == 1:
        return variables
    shape = [1] * ndim
    shape[dim] = -1
    return variables.view(shape)


def loosened(before: Tensor, after: Tensor) -> frozenset[int]:
    """The dimensions along which an expansion repeated a single entry.

    Args:
        before: The tensor that was expanded.
        after: The result.
    """
    pad = after.dim() - before.dim()
    return frozenset(
        dim for dim in range(after.dim()) if after.shape[dim] > 1 and (dim < pad or before.shape[dim - pad] == 1)
    )
