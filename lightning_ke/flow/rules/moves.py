"""Operations that only move data: they run on the labels themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_ke.flow.labels import Labels, Layer, along, compact, loosened, pinned, place, reshaped, searched
from lightning_ke.flow.leaves import Leaf, replaced
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.rules.attention import divide_heads, join_heads_with_stream
from lightning_ke.flow.variables import PINNED, Channels, as_rows

aten = torch.ops.aten


@register_rule(aten.permute, aten.transpose, aten.t)
def _reorder(op: Operation) -> None:
    tensor, output = op.args[0], op.outputs[0]
    order = list(range(tensor.dim()))
    if op.operator.overloadpacket is aten.permute:
        order = [dim % tensor.dim() for dim in op.args[1]]
    else:
        one, other = op.args[1:] if len(op.args) > 1 else (0, -1)
        if order:
            order[one], order[other] = order[other], order[one]
    labels = op.labels(tensor)
    _label(op, output, [layer.permute(order) for layer in labels.layers], labels.heads)


@register_rule(aten.unsqueeze)
def _unsqueeze(op: Operation) -> None:
    output, labels = op.outputs[0], op.labels(op.args[0])
    dim = op.args[1] % output.dim()
    shapes = [(*layer.shape[:dim], 1, *layer.shape[dim:]) for layer in labels.layers]
    layers = [layer.reshape(shape) for layer, shape in zip(labels.layers, shapes, strict=True)]
    _label(op, output, layers, labels.heads)


@register_rule(aten.alias, aten.detach)
def _alias(op: Operation) -> None:
    labels = op.labels(op.args[0])
    _label(op, op.outputs[0], labels.layers, labels.heads)


@register_rule(aten.squeeze, aten.select, aten.unbind, aten.diagonal, aten.narrow)
def _view(op: Operation) -> None:
    _move(op, search=False)


@register_rule(aten.expand)
def _expand(op: Operation) -> None:
    _move(op, search=False)
    _loosen(op)


@register_rule(aten.repeat)
def _repeat(op: Operation) -> None:
    tensor, numbers = op.args[:2]
    labels = op.labels(tensor)
    layers = []
    for layer in labels.layers:
        shape = (1,) * (len(numbers) - len(layer.shape)) + layer.shape
        times = [number if size > 1 else 1 for number, size in zip(numbers, shape, strict=True)]
        layers.append(searched(np.tile(layer.array.reshape(shape), times)))
    _label(op, op.outputs[0], layers, labels.heads)
    _loosen(op)


def _loosen(op: Operation) -> None:
    """Note along which dimensions a single entry was repeated."""
    loose = loosened(op.args[0], op.outputs[0])
    op.tracer.label(op.outputs[0], replaced(op.labels(op.outputs[0]), loose=loose))


@register_rule(
    aten.pixel_shuffle,
    aten.pixel_unshuffle,
    aten.unfold,
    aten.rot90,
)
def _copying_move(op: Operation) -> None:
    _move(op, search=True)


@register_rule(aten.channel_shuffle, aten.native_channel_shuffle)
def _shuffle(op: Operation) -> None:
    """Every group keeps the same share of its channels."""
    for layer in along(op.labels(op.args[0]).layers, 1):
        groups = as_rows(op.uniform(layer, 1), op.args[1])
        op.variables.join(groups, groups[:1])
    _move(op, search=True)


@register_rule(aten.glu)
def _glu(op: Operation) -> None:
    """One half is multiplied by the other: both keep the same positions."""
    tensor, output = op.args[0], op.outputs[0]
    dim = op.argument(1, "dim", -1) % tensor.dim()
    half, layers = output.shape[dim], []
    for layer in op.labels(tensor).layers:
        layers.append(layer.narrow(dim, 0, half))
        if layer.shape[dim] > 1:
            op.variables.join(layers[-1].array, layer.narrow(dim, half, half).array)
    _label(op, output, layers, None)


@register_rule(aten.view_as_complex, aten.view_as_real)
def _complex(op: Operation) -> None:
    """The last dimension holds the two parts of a number: channels along it are kept."""
    tensor, last = op.args[0], op.args[0].dim() - 1
    layers, heads = op.labels(tensor).layers, op.labels(tensor).heads
    if op.operator.overloadpacket is aten.view_as_real:
        _label(op, op.outputs[0], [layer.reshape((*layer.shape, 1)) for layer in layers], heads)
    else:
        op.pin(along(layers, last))
        _label(op, op.outputs[0], [layer.without([last]) for layer in layers if layer.shape[last] == 1], heads)


@register_rule(aten.flip, aten.roll)
def _turn(op: Operation) -> None:
    position = 1 if op.operator.overloadpacket is aten.flip else 2
    dims = [dim % op.args[0].dim() for dim in op.argument(position, "dims", ())]
    labels = op.labels(op.args[0])
    if dims and not any(layer.shape[dim] > 1 for layer in labels.layers for dim in dims):
        _label(op, op.outputs[0], labels.layers, labels.heads)
    else:
        _move(op, search=True)


@register_rule(aten.split, aten.split_with_sizes, aten.unsafe_split, aten.unsafe_split_with_sizes)
def _split(op: Operation) -> None:
    """Equal parts stay equal: they keep the same positions. Unequal ones are chosen from one by one."""
    tensor = op.args[0]
    dim = op.argument(2, "dim", 0) % tensor.dim()
    labels, start = op.labels(tensor), 0
    op.tracer.size(tensor)
    for output in op.outputs:
        size = output.shape[dim]
        _label(op, output, [layer.narrow(dim, start, size) for layer in labels.layers], labels.heads)
        start += size
    parts = [along(op.labels(output).layers, dim) for output in op.outputs]
    equal = len({output.shape for output in op.outputs}) == 1
    for layers in parts:
        for first, layer in zip(parts[0], layers, strict=False):
            if equal and first is not layer and first.shape == layer.shape:
                op.variables.join(first.array, layer.array)
        op.tracer.pieces.extend(layers)


@register_rule(aten.slice)
def _slice(op: Operation) -> None:
    tensor, output = op.args[0], op.outputs[0]
    dim, start = op.argument(1, "dim", 0) % tensor.dim(), op.argument(2, "start") or 0
    # What begins at a number of the code's own (``x[:, self.width:]``) has a size that says nothing of that number: the
    # channels before it do.
    before = start if start > 0 and start + output.shape[dim] == tensor.shape[dim] else 0
    if start >= 0 and op.argument(4, "step", 1) == 1:
        labels = op.labels(tensor)
        parts = [layer.narrow(dim, start, output.shape[dim]) for layer in labels.layers]
        _label(op, output, parts, labels.heads, sized=not before)
    else:
        _move(op, search=False, sized=not before)
    if before:
        layers = [layer.narrow(dim, 0, before) for layer in op.labels(tensor).layers]
        op.tracer.size(op.operator(tensor, dim, 0, before), layers)
    if output.shape != tensor.shape:
        op.tracer.pieces.extend(along(op.labels(output).layers, dim))


@register_rule(aten.view, aten._unsafe_view, aten.reshape)
def _reshape(op: Operation) -> None:
    tensor, size = op.args[0], op.outputs[0].shape
    labels, before, after = op.labels(tensor), tensor.shape, size
    if not tensor.numel():  # nothing was detected: where there is nothing, one position says what becomes of channels
        before, after = _one_for_none(before), _one_for_none(after)
        if math.prod(before) != math.prod(after):
            labels = _kept_whole(op, labels)
    merged = False
    layers = []
    for layer in labels.layers:
        found = reshaped(layer, before, after)
        if len(found.dims) > len(layer.dims):
            found = searched(found.array)  # channels that an unfolding repeated are one again
        if len(found.dims) > len(layer.dims):
            found = divide_heads(op, found)
        elif labels.heads is not None and len(found.dims) == 1 and found.dims != (0,) and tensor.dim() > len(size):
            join_heads_with_stream(op, found)
            merged = True
        layers.append(found)
    layers = _without_single(op, layers)
    op.tracer.size(op.outputs[0], layers)
    op.label(op.outputs[0], layers, like=[tensor], heads=None if merged else labels.heads)


def _move(op: Operation, *, search: bool, sized: bool = True) -> None:
    tensor = op.args[0]
    labels = op.labels(tensor)
    found: list[list[Layer]] = [[] for _ in op.outputs]
    if not tensor.numel():
        labels = _kept_whole(op, labels)
    for layer in labels.layers:
        moved = op.run(layer)
        for layers, part in zip(found, [moved] if isinstance(moved, Tensor) else moved, strict=True):
            layers.append(compact(part, search=search))
    for output, layers in zip(op.outputs, found, strict=True):
        _label(op, output, layers, labels.heads, sized)


def _one_for_none(shape: Sequence[int]) -> torch.Size:
    return torch.Size([size or 1 for size in shape])


def _kept_whole(op: Operation, labels: Labels | Leaf) -> Labels:
    """The labels of a tensor without entries, which do not show where its channels go: they are kept."""
    op.pin(labels.layers)
    return replaced(labels, layers=())


def _label(op: Operation, output: Tensor, layers: Sequence[Layer], heads: Channels | None, sized: bool = True) -> None:
    kept = [layer for layer in layers if layer.size > 1]
    if sized:
        op.tracer.size(output, kept)
    op.label(output, kept, like=[op.args[0]], heads=heads)
    if len(kept) < len(layers):
        picked = tuple([layer for layer in layers if layer.size == 1])
        op.tracer.label(output, replaced(op.labels(output), picked=picked))


def _without_single(op: Operation, layers: Sequence[Layer]) -> list[Layer]:
    """A tensor that is one channel as a whole (``x[:, 0]``) was picked by its position: that channel is kept."""
    op.pin([layer for layer in layers if layer.size == 1])
    return [layer for layer in layers if layer.size > 1]


@register_rule(aten.cat)
def _cat(op: Operation) -> None:
    ndim = op.outputs[0].dim()
    # torch lets empty one-dimensional tensors take part.
    tensors = [tensor for tensor in op.args[0] if tensor.dim() == ndim]
    dim = op.argument(1, "dim", 0) % ndim
    sizes = [tensor.shape[dim] for tensor in tensors]
    layers = []
    for parts in _aligned(op, tensors, dim):
        # Where none has channels along that dimension, one position of each says in what they differ.
        alike = all(part.shape[dim] == 1 for part in parts)
        layer = _one_after_another(parts, [min(size, 1) for size in sizes] if alike else sizes, dim)
        if alike and layer.dims == (dim,):
            layer = _one_after_another(parts, sizes, dim)
        if dim in layer.dims[:-1]:
            # Things of equal width one after another (a class token before its patches): the same positions of each.
            width = next(at for at in reversed(layer.dims) if at != dim)
            op.uniform(layer, width)
            layer = layer.narrow(dim, 0, 1)
            _carry_one_factor(op, [part for part in parts if part.shape[width] > 1], width)
        layers.append(layer)
    op.label(op.outputs[0], _without_single(op, layers), like=tensors)


def _one_after_another(parts: Sequence[Layer], sizes: Sequence[int], dim: int) -> Layer:
    """The layer of what is put side by side, each part with a number of positions."""
    widest = [max(part.shape[at] for part in parts) for at in range(len(parts[0].shape))]
    shapes = [(*widest[:dim], size, *widest[dim + 1 :]) for size in sizes]
    full = [part.expand(shape).array for part, shape in zip(parts, shapes, strict=True)]
    return searched(np.concatenate(full, dim))


def _carry_one_factor(op: Operation, parts: Sequence[Layer], dim: int) -> None:
    """A factor that is put on the first of some parts (keys) must be put on the others (learned keys) as well."""
    first = op.uniform(parts[0], dim)
    op.tracer.companions += [(op.uniform(part, dim), first) for part in parts[1:]]


def _aligned(op: Operation, tensors: Sequence[Tensor], dim: int) -> list[list[Layer]]:
    """For each layer of the result one layer of every source; a source without such a layer is kept there."""
    ndim = tensors[0].dim()
    held: list[Sequence[Layer]] = [op.labels(tensor).layers for tensor in tensors]
    if dim < ndim and (not any(held) or any(along(layers, dim) for layers in held)):
        held = _filled_up(op, tensors, dim)
    keys: list[bool] = []
    for layers in held:
        own = [layer.shape[dim] > 1 if dim < ndim else False for layer in layers]
        for key in (True, False):
            keys += [key] * (own.count(key) - keys.count(key))
    rows = []
    for key in sorted(set(keys), reverse=True):
        for index in range(keys.count(key)):
            row = []
            for layers in held:
                own_layers = [layer for layer in layers if (layer.shape[dim] > 1 if dim < ndim else False) is key]
                row.append(own_layers[index] if index < len(own_layers) else None)
            # A tensor of one value takes whatever size its neighbours have; any other without a layer is always kept.
            known = next(part for part in row if part is not None)
            kept = pinned((1,) * ndim)
            rows.append(
                [
                    part if part is not None else known if op.labels(tensor).uniform and not key else kept
                    for part, tensor in zip(row, tensors, strict=True)
                ]
            )
    return rows


def _filled_up(op: Operation, tensors: Sequence[Tensor], dim: int) -> list[Sequence[Layer]]:
    """The layers of tensors side by side, of which some may hold one value.

    A first hidden state has as many channels as what takes its place later. But code may make as many as are missing to
    a number of its own (`Tracer.filled`): then all are kept.
    """
    held: list[Sequence[Layer]] = [op.labels(tensor).layers for tensor in tensors]
    made = [
        op.labels(tensor).uniform and tensor.shape[dim] > 1 and not along(layers, dim)
        for tensor, layers in zip(tensors, held, strict=True)
    ]
    if any(made) and op.tracer.module in op.tracer.filled:
        op.pin(layer for layers in held for layer in along(layers, dim))
    elif any(made):
        op.tracer.filling.add(op.tracer.module)
        for index, tensor in enumerate(tensors):
            if made[index]:
                new = place(op.variables.new(tensor.shape[dim]), dim, tensor.dim())
                held[index] = (*held[index], new)
    return held


@register_rule(aten.stack)
def _stack(op: Operation) -> None:
    tensors, ndim = op.args[0], op.outputs[0].dim()
    dim = op.argument(1, "dim", 0) % ndim
    layers = []
    for parts in _aligned(op, tensors, ndim):
        widest = max(parts, key=lambda part: part.size)
        for part in parts:
            op.variables.join(widest.array, part.array)
        layers.append(widest.reshape((*widest.shape[:dim], 1, *widest.shape[dim:])))
    op.label(op.outputs[0], _without_single(op, layers), like=tensors)


@register_rule(aten.constant_pad_nd)
def _pad(op: Operation) -> None:
    tensor, output = op.args[0], op.outputs[0]
    amounts = op.args[1]
    layers = []
    for layer in op.labels(tensor).layers:
        # What is added is always there: it gets the variable of what is always kept.
        pairs = [0] * len(amounts)
        for index in range(0, len(amounts), 2):
            if layer.shape[tensor.dim() - 1 - index // 2] > 1:
                pairs[index : index + 2] = amounts[index : index + 2]
        layers.append(compact(torch.constant_pad_nd(torch.from_numpy(layer.array), pairs, PINNED), search=False))
    op.label(output, layers, like=[tensor])


@register_rule(aten.as_strided)
def _as_strided(op: Operation) -> None:
    tensor, output = op.args[0], op.outputs[0]
    layers = op.labels(tensor).layers
    # torch restrides pooled tensors in place, which moves nothing; any other use is beyond what labels can follow.
    if tensor.shape != output.shape:
        op.pin(layers)
        layers = ()
    op.label(output, layers, like=[tensor])
