"""The labels that travel beside a tensor: which channel variable each of its positions belongs to.

A layer has as many dimensions as the tensor it labels. Along a dimension that carries channels it has the tensor's
size, along all others it has size one, so labels of a 224 px activation are as small as its channels; channels whose
variables were made one after another take no memory at all. A position is kept where the variables of all its layers
are kept. A tensor without layers is always kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_ke.flow.variables import PINNED, Channels, as_array


class Layer:
    """Channel variables of the positions of one tensor.

    Args:
        entries: The variables: an array of the layer's shape, or a range along the only dimension with channels.
        shape: The tensor's size along dimensions that carry channels, one along all others.

    Attributes:
        dims: The dimensions that carry channels.
    """

    __slots__ = ("dims", "entries", "shape")

    def __init__(self, entries: Channels, shape: tuple[int, ...]) -> None:
        self.entries = entries
        self.shape = shape
        self.dims = tuple([dim for dim, size in enumerate(shape) if size > 1])

    @property
    def size(self) -> int:
        """The number of variables."""
        return len(self.entries) if isinstance(self.entries, range) else self.entries.size

    @property
    def flat(self) -> Channels:
        """The variables in one dimension."""
        return self.entries if isinstance(self.entries, range) else self.entries.reshape(-1)

    @property
    def array(self) -> NDArray[np.int32]:
        """The variables as an array of the layer's shape."""
        return as_array(self.entries).reshape(self.shape)

    def reshape(self, shape: tuple[int, ...]) -> Layer:
        """The same variables in another shape of as many entries.

        Args:
            shape: The new shape; that of a range has one dimension of more than one entry, as before.
        """
        entries = self.entries
        return Layer(entries if isinstance(entries, range) else entries.reshape(shape), shape)

    def permute(self, order: Sequence[int]) -> Layer:
        """The layer of a tensor whose dimensions were put in another order.

        Args:
            order: For each new dimension the old one.
        """
        entries = self.entries
        shape = tuple([self.shape[dim] for dim in order])
        return Layer(entries if isinstance(entries, range) else entries.transpose(order), shape)

    def narrow(self, dim: int, start: int, size: int) -> Layer:
        """The layer of a part of a tensor; the layer itself if no channels lie along that dimension.

        Args:
            dim: The dimension along which the part was cut out.
            start: Its first position.
            size: Its number of positions.
        """
        if self.shape[dim] == 1:
            return self
        shape = (*self.shape[:dim], size, *self.shape[dim + 1 :])
        if isinstance(self.entries, range):
            return Layer(self.entries[start : start + size], shape)
        return Layer(self.entries[(slice(None),) * dim + (slice(start, start + size),)], shape)

    def without(self, dims: Iterable[int]) -> Layer:
        """The layer of a tensor that lost dimensions along which it has no channels.

        Args:
            dims: The lost dimensions.
        """
        return self.reshape(tuple([size for dim, size in enumerate(self.shape) if dim not in dims]))

    def expand(self, shape: tuple[int, ...]) -> Layer:
        """The layer, repeated along dimensions where another shape is larger.

        Args:
            shape: A shape that this one broadcasts to.
        """
        return self if shape == self.shape else Layer(torch.from_numpy(self.array).expand(shape).numpy(), shape)

    def over(self, tensor: Tensor) -> Tensor:
        """The variable of every position of a tensor, for operations that run on labels.

        Args:
            tensor: The tensor that is labelled.

        Returns:
            int32 tensor of the tensor's shape, of stride zero along dimensions without channels.
        """
        return torch.from_numpy(self.array).expand(tensor.shape)


class Labels(NamedTuple):
    """What is known of the positions of one tensor.

    Args:
        layers: The layers described above; usually none or one.
        uniform: True for a tensor that holds one value everywhere and takes its size from others (``zeros_like``, an
            initial hidden state): it fits to channels of any kind.
        weight: True if the tensor was computed from parameters and buffers alone.
        fixed: True if it was computed from buffers alone: a weight that is no parameter produces no channels to choose.
        loose: Dimensions along which one value was expanded to whatever size the neighbours have.
        heads: From the first product of an attention until its heads are put side by side again: the variables of the
            channels that the last product summed over (no entries if it summed over none).
        picked: The layers of a tensor that is one channel as a whole, which was picked by its position: that channel is
            kept as soon as an operation reads it (code may ask for the tensor's shape alone).
    """

    layers: tuple[Layer, ...] = ()
    uniform: bool = False
    weight: bool = False
    fixed: bool = False
    loose: frozenset[int] = frozenset()
    heads: Channels | None = None
    picked: tuple[Layer, ...] = ()


def same_layers(some: Sequence[Layer], others: Sequence[Layer]) -> bool:
    """Whether two tensors are labelled alike.

    Args:
        some: Layers of one of them.
        others: Layers of the other.
    """
    return len(some) == len(others) and all(
        one.shape == other.shape and np.array_equal(one.array, other.array)
        for one, other in zip(some, others, strict=True)
    )


def along(layers: Sequence[Layer], dim: int) -> list[Layer]:
    """The layers that carry channels along a dimension.

    Args:
        layers: Layers of one tensor.
        dim: A dimension, not negative.
    """
    return [layer for layer in layers if layer.shape[dim] > 1]


def place(variables: Channels, dim: int, ndim: int) -> Layer:
    """A layer that carries the given variables along one dimension.

    Args:
        variables: Variables of shape (size,).
        dim: The dimension that carries them.
        ndim: Number of dimensions of the labelled tensor.
    """
    shape = (1,) * dim + (len(variables),) + (1,) * (ndim - dim - 1)
    return Layer(variables if isinstance(variables, range) else variables.reshape(shape), shape)


def pinned(shape: tuple[int, ...]) -> Layer:
    """A layer of positions that are always kept.

    Args:
        shape: Its shape.
    """
    return Layer(np.full(shape, PINNED, dtype=np.int32), shape)


def compact(full: Tensor, *, search: bool) -> Layer:
    """Reduce a full-sized integer tensor to a layer.

    Args:
        full: Integer tensor of the labelled tensor's shape; dimensions of stride zero carry no channels.
        search: Look also for dimensions that carry none because all their entries are equal (after a copying move).
    """
    for dim in range(full.dim()):
        if full.shape[dim] > 1 and full.stride(dim) == 0:
            full = full.narrow(dim, 0, 1)
    entries = full.numpy()
    return searched(entries) if search else _layer(entries)


def searched(entries: NDArray[np.int32]) -> Layer:
    """The layer of an array, without the dimensions along which all entries are equal.

    Args:
        entries: Array of variables.
    """
    for dim, size in enumerate(entries.shape):
        if size > 1:
            first_only = (*(slice(None),) * dim, slice(0, 1))
            first = entries[first_only]
            # The last position is asked first, because it nearly always answers.
            if first.item(0) == entries.take(-1, dim).item(0) and bool((entries == first).all()):
                entries = first.copy()  # not a view, which would hold all that it is a part of
    return _layer(entries)


def _layer(entries: NDArray[np.int32]) -> Layer:
    """A layer of the given entries, a range where that is what they are."""
    size = entries.size
    if 1 < size == max(entries.shape):
        first = entries.item(0)
        if entries.item(size - 1) == first + size - 1:
            flat = entries.reshape(-1)
            if bool((flat[1:] > flat[:-1]).all()):
                return Layer(range(first, first + size), entries.shape)
    return Layer(entries, entries.shape)


def reshaped(layer: Layer, before: Sequence[int], after: Sequence[int]) -> Layer:
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
    shape = tuple(moved_sizes)
    if tuple(sizes) == layer.shape:
        if isinstance(layer.entries, range) and max(shape) == layer.size:
            return layer.reshape(shape)
        entries = layer.array
        return _layer(entries.reshape(shape)) if entries.flags.c_contiguous else searched(entries.reshape(shape))
    full = torch.from_numpy(layer.array).expand(sizes)
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


def distinct_rows(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The rows of a matrix without those that windows or batches repeat, in the order of their first appearance.

    Args:
        rows: Integer matrix.
    """
    if len(rows) == 1:
        return rows
    heads = rows[:, 0]
    if len(set(heads.tolist())) == len(heads):
        return rows
    first, inverse = np.unique(heads, return_index=True, return_inverse=True)[1:]
    return rows[np.sort(first)] if bool((rows[first[inverse]] == rows).all()) else rows


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
