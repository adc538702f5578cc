"""Reading and writing at given positions: channels may not be picked by number, all else moves."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ke.flow.labels import Layer, along, compact, pinned
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.rules.elementwise import merge

aten = torch.ops.aten


@register_rule(aten.index)
def _index(op: Operation) -> None:
    tensor, indices = op.args[0], op.args[1]
    layers = []
    for layer in op.labels(tensor).layers:
        full = layer.over(tensor)
        at = [None if index is None else _positions(index) for index in indices]
        layers.append(compact(torch.ops.aten.index(full, at), search=True))
    _label_moved(op, tensor, layers)


def _positions(index: Tensor) -> Tensor:
    """The index itself; one without values stands at zero, which is right where no channels lie along it."""
    return torch.zeros(index.shape, dtype=torch.long) if index.device.type == "meta" else index.cpu()


@register_rule(aten.index_select)
def _index_select(op: Operation) -> None:
    tensor, dim, index = op.args[:3]
    layers = []
    for layer in op.labels(tensor).layers:
        if index.device.type == "meta":
            op.pin(along([layer], dim % tensor.dim()))
        if layer.shape[dim] == 1 or index.device.type == "meta":
            layers.append(layer if layer.shape[dim] == 1 else pinned(layer.narrow(dim, 0, 1).shape))
        else:
            picked = layer.array.take(index.cpu().numpy(), dim)
            layers.append(Layer(picked, picked.shape))
    _label_moved(op, tensor, layers)


@register_rule(aten.gather, aten.take_along_dim)
def _gather(op: Operation) -> None:
    tensor, dim = op.args[0], op.args[1] % op.args[0].dim()
    op.pin(along(op.labels(tensor).layers, dim))
    kept = [layer for layer in op.labels(tensor).layers if layer.shape[dim] == 1]
    kept += [layer for layer in op.labels(op.args[2]).layers if not _covered(layer, kept)]
    op.label(op.outputs[0], [_cropped(layer, op.outputs[0]) for layer in kept])


def _covered(layer: Layer, others: list[Layer]) -> bool:
    return any(other.shape[dim] > 1 for other in others for dim in layer.dims)


def _cropped(layer: Layer, output: Tensor) -> Layer:
    for dim, size in enumerate(output.shape):
        if layer.shape[dim] > size:
            layer = layer.narrow(dim, 0, size)
    return layer


@register_rule(aten.scatter_add, aten.scatter, aten.scatter_reduce, aten.index_add, aten.index_copy)
def _scatter(op: Operation) -> None:
    tensor, dim, source = op.args[0], op.args[1], op.args[3]
    if not isinstance(source, Tensor):
        source = tensor
    dim %= max(tensor.dim(), 1)
    for side in (tensor, source):
        op.pin(along(op.labels(side).layers, dim))
    # Along `dim` the two have different sizes; they lie on each other along all other dimensions.
    sides = [tensor.narrow(dim, 0, 1), source.narrow(dim, 0, 1)]
    for side, narrowed in zip((tensor, source), sides, strict=True):
        labels = op.labels(side)
        op.tracer.relabel(narrowed, labels, [layer for layer in labels.layers if layer.shape[dim] == 1])
    op.label(op.outputs[0], merge(op, sides, tensor.dim()))


@register_rule(aten.index_put)
def _index_put(op: Operation) -> None:
    tensor, values = op.args[0], op.args[2]
    first = next(position for position, index in enumerate(op.args[1]) if index is not None)
    last = max(position for position, index in enumerate(op.args[1]) if index is not None)
    for dim in range(first, last + 1):
        op.pin(along(op.labels(tensor).layers, dim))
    op.pin(op.labels(values).layers)
    op.label(op.outputs[0], [layer for layer in op.labels(tensor).layers if last < min(layer.dims, default=0)])


def _label_moved(op: Operation, tensor: Tensor, layers: list[Layer]) -> None:
    op.pin(layer for layer in layers if layer.size == 1)
    op.label(op.outputs[0], [layer for layer in layers if layer.size > 1], like=[tensor])
