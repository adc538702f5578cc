"""Operations that only move data: they run on the labels themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ke.flow.labels import along, compact, loosened, reshaped, varying
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.rules.attention import join_heads_with_stream
from lightning_ke.flow.variables import PINNED

aten = torch.ops.aten


@register_rule(
    aten.permute,
    aten.transpose,
    aten.t,
    aten.movedim,
    aten.unsqueeze,
    aten.alias,
    aten.detach,
)
def _reorder(op: Operation) -> None:
    """What does not depend on sizes runs on the layers as they are."""
    labels = op.labels(op.args[0])
    _label(op, op.outputs[0], [op.run(layer) for layer in labels.layers], labels.heads)


@register_rule(aten.squeeze, aten.select, aten.unbind, aten.diagonal, aten.narrow)
def _view(op: Operation) -> None:
    _move(op, search=False)


@register_rule(aten.expand)
def _expand(op: Operation) -> None:
    _move(op, search=False)
    labels = op.labels(op.outputs[0])
    op.tracer.label(op.outputs[0], labels._replace(loose=loosened(op.args[0], op.outputs[0])))


@register_rule(
    aten.repeat,
    aten.pixel_shuffle,
    aten.pixel_unshuffle,
    aten.channel_shuffle,
    aten.native_channel_shuffle,
    aten.unfold,
    aten.rot90,
)
def _copying_move(op: Operation) -> None:
    _move(op, search=True)


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
    op.tracer.size(op.args[0])
    _move(op, search=False)
    dim = op.argument(2, "dim", 0) % op.args[0].dim()
    parts = [along(op.labels(output).layers, dim) for output in op.outputs]
    equal = len({output.shape for output in op.outputs}) == 1
    for layers in parts:
        for first, layer in zip(parts[0], layers, strict=False):
            if equal and first.shape == layer.shape:
                op.variables.join(first, layer)
        op.tracer.pieces.extend(layers)


@register_rule(aten.slice)
def _slice(op: Operation) -> None:
    tensor, output = op.args[0], op.outputs[0]
    dim, start = op.argument(1, "dim", 0) % tensor.dim(), op.argument(2, "start") or 0
    # What begins at a number of the code's own (``x[:, self.width:]``) has a size that says nothing of that number: the
    # channels before it do.
    before = start if start > 0 and start + output.shape[dim] == tensor.shape[dim] else 0
    _move(op, search=False, sized=not before)
    if before:
        op.tracer.size(op.operator(tensor, dim, 0, before), _first_part(op.labels(tensor).layers, dim, before))
    if output.shape != tensor.shape:
        op.tracer.pieces.extend(along(op.labels(output).layers, dim))


def _first_part(layers: Sequence[Tensor], dim: int, size: int) -> list[Tensor]:
    return [layer.narrow(dim, 0, size) if layer.shape[dim] > 1 else layer for layer in layers]


@register_rule(aten.view, aten._unsafe_view, aten.reshape)
def _reshape(op: Operation) -> None:
    tensor, size = op.args[0], op.outputs[0].shape
    labels = op.labels(tensor)
    merged = False
    layers = []
    for layer in labels.layers:
        found = reshaped(layer, tensor.shape, size)
        if len(varying(found)) > len(varying(layer)):
            found = compact(found, search=True)  # channels that an unfolding repeated are one again
        if len(varying(found)) > len(varying(layer)):
            _divide(op, found)
        elif labels.heads is not None and len(varying(found)) == 1 and tensor.dim() > len(size):
            join_heads_with_stream(op, found)
            merged = True
        layers.append(found)
    layers = _without_single(op, layers)
    op.tracer.size(op.outputs[0], layers)
    op.label(op.outputs[0], layers, like=[tensor], heads=None if merged else labels.heads)


def _divide(op: Operation, layer: Tensor) -> None:
    """Channels were divided into rows (heads, the sides of a shuffle): every row keeps the same positions."""
    op.uniform(layer, varying(layer)[-1])


def _move(op: Operation, *, search: bool, sized: bool = True) -> None:
    tensor = op.args[0]
    labels = op.labels(tensor)
    found: list[list[Tensor]] = [[] for _ in op.outputs]
    for layer in labels.layers:
        moved = op.run(layer.expand(tensor.shape))
        for layers, part in zip(found, [moved] if isinstance(moved, Tensor) else moved, strict=True):
            layers.append(compact(part, search=search))
    for output, layers in zip(op.outputs, found, strict=True):
        _label(op, output, layers, labels.heads, sized)


def _label(op: Operation, output: Tensor, layers: Sequence[Tensor], heads: Tensor | None, sized: bool = True) -> None:
    kept = _without_single(op, layers)
    if sized:
        op.tracer.size(output, kept)
    op.label(output, kept, like=[op.args[0]], heads=heads)


def _without_single(op: Operation, layers: Sequence[Tensor]) -> list[Tensor]:
    """A tensor that is one channel as a whole (``x[:, 0]``) was picked by its position: that channel is kept."""
    op.pin([layer for layer in layers if layer.numel() == 1])
    return [layer for layer in layers if layer.numel() > 1]


@register_rule(aten.cat)
def _cat(op: Operation) -> None:
    ndim = op.outputs[0].dim()
    # torch lets empty one-dimensional tensors take part.
    tensors = [tensor for tensor in op.args[0] if tensor.dim() == ndim]
    dim = op.argument(1, "dim", 0) % ndim
    layers = []
    for parts in _aligned(op, tensors, dim):
        others = [max(part.shape[at] for part in parts) for at in range(ndim)]
        full = []
        for tensor, part in zip(tensors, parts, strict=True):
            others[dim] = tensor.shape[dim]
            full.append(part.expand(others))
        layers.append(compact(torch.cat(full, dim), search=True))
    for layer in layers:
        if len(varying(layer)) > 1 and dim in varying(layer):
            # Things of equal width one after another (a class token before its patches): the same positions of each.
            op.uniform(layer, next(at for at in reversed(varying(layer)) if at != dim))
    layers = [
        _first_along(layer, dim) if len(varying(layer)) > 1 and dim in varying(layer) else layer for layer in layers
    ]
    op.label(op.outputs[0], _without_single(op, layers), like=tensors)


def _first_along(layer: Tensor, dim: int) -> Tensor:
    return layer.narrow(dim, 0, 1)


def _aligned(op: Operation, tensors: Sequence[Tensor], dim: int) -> list[list[Tensor]]:
    """For each layer of the result one layer of every source; a source without such a layer is kept there."""
    ndim = tensors[0].dim()
    keys: list[bool] = []
    for tensor in tensors:
        own = [layer.shape[dim] > 1 if dim < ndim else False for layer in op.labels(tensor).layers]
        for key in (True, False):
            keys += [key] * (own.count(key) - keys.count(key))
    rows = []
    for key in sorted(set(keys), reverse=True):
        for index in range(keys.count(key)):
            row = []
            for tensor in tensors:
                own_layers = [
                    layer
                    for layer in op.labels(tensor).layers
                    if (layer.shape[dim] > 1 if dim < ndim else False) is key
                ]
                row.append(own_layers[index] if index < len(own_layers) else None)
            # A tensor of one value takes whatever size its neighbours have; any other without a layer is always kept.
            known = next(part for part in row if part is not None)
            kept = torch.full([1] * ndim, PINNED)
            rows.append(
                [
                    part if part is not None else known if op.labels(tensor).uniform and not key else kept
                    for part, tensor in zip(row, tensors, strict=True)
                ]
            )
    return rows


@register_rule(aten.stack)
def _stack(op: Operation) -> None:
    tensors, ndim = op.args[0], op.outputs[0].dim()
    dim = op.argument(1, "dim", 0) % ndim
    layers = []
    for parts in _aligned(op, tensors, ndim):
        shape = [max(part.shape[at] for part in parts) for at in range(ndim - 1)]
        widest = max(parts, key=Tensor.numel)
        for part in parts:
            op.variables.join(widest.expand(shape), part.expand(shape))
        layers.append(widest.unsqueeze(dim))
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
        layers.append(torch.constant_pad_nd(layer, pairs, PINNED))
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
