"""Reading and writing at given positions: channels may not be picked by number, all else moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ke.flow.dry import tensors
from lightning_ke.flow.labels import Layer, along, compact, pinned
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.rules.elementwise import merge

aten = torch.ops.aten

_MASKS = (torch.bool, torch.uint8)


@register_rule(aten.index)
def _index(op: Operation) -> None:
    tensor, indices = op.args[0], op.args[1]
    layers = []
    covered, _ = _covered_dims(indices)
    unknown = any(index is not None and index.is_meta for index in indices) or not op.outputs[0].numel()
    for layer in op.labels(tensor).layers:
        if not any(layer.shape[dim] > 1 for dim in covered):
            # Whatever is picked, and if it is nothing: the same channels.
            found = torch.ops.aten.index(torch.from_numpy(layer.array), _first_of_each(indices)).numpy()
            layers.append(layer if found.shape == layer.shape else Layer(found, found.shape))
        elif unknown or any(index is not None and op.labels(index).fixed for index in indices):
            op.pin([layer])  # picked by numbers that code computes, or that a buffer holds in the slim network as well
        else:
            at = [None if index is None else index.cpu() for index in indices]
            layers.append(compact(torch.ops.aten.index(layer.over(tensor), at), search=True))
    _label_moved(op, tensor, layers)


def _first_of_each(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The first position along all dimensions that are indexed, in as many dimensions as the indices have."""
    firsts: list[Tensor | None] = []
    for index in indices:
        if index is None:
            firsts.append(None)
        elif index.dtype in _MASKS:
            firsts += [torch.zeros(1, dtype=torch.long)] * index.dim()
        else:
            firsts.append(torch.zeros((1,) * index.dim(), dtype=torch.long))
    return firsts


@register_rule(aten.index_select)
def _index_select(op: Operation) -> None:
    tensor, dim, index = op.args[:3]
    layers = []
    unknown = index.is_meta or op.labels(index).fixed
    for layer in op.labels(tensor).layers:
        if unknown:
            op.pin(along([layer], dim % tensor.dim()))
        if layer.shape[dim] == 1 or unknown:
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
    """Channels along what is written to by number are kept; along all else the values lie on the tensor's."""
    tensor, values = op.args[0], op.args[2]
    labels, given = op.labels(tensor), op.labels(values)
    covered, rank = _covered_dims(op.args[1])
    for dim in covered:
        op.pin(along(labels.layers, dim))
    own = [layer for layer in labels.layers if not any(layer.shape[dim] > 1 for dim in covered)]
    first, last = covered[0], covered[-1]
    if last - first + 1 > len(covered):  # torch puts the picked positions before all other dimensions
        op.pin([*own, *given.layers])
        op.label(op.outputs[0], [])
        return
    pad = (1,) * (tensor.dim() - len(covered) + rank - values.dim())
    side = tensor
    for dim in covered:
        side = side.narrow(dim, 0, 1)
    op.tracer.relabel(side, labels, own)

    def placed(shape: Sequence[int]) -> tuple[int, ...]:
        padded = (*pad, *shape)
        return (*padded[:first], *(1 for _ in covered), *padded[first + rank :])

    layers = []
    for layer in given.layers:
        if any(first <= dim + len(pad) < first + rank for dim in layer.dims):
            op.pin([layer])
        else:
            layers.append(layer.reshape(placed(layer.shape)))
    written = torch.empty(placed(values.shape), device="meta")
    op.tracer.relabel(written, given, layers)
    op.label(op.outputs[0], merge(op, [side, written], tensor.dim()))


def _covered_dims(indices: Sequence[Tensor | None]) -> tuple[list[int], int]:
    """The dimensions that are indexed, and how many take their place; a mask indexes as many as it has."""
    covered: list[int] = []
    dim = rank = 0
    for index in indices:
        masks = index is not None and index.dtype in _MASKS
        width = index.dim() if index is not None and masks else 1
        if index is not None:
            covered += range(dim, dim + width)
            rank = max(rank, 1 if masks else index.dim())
        dim += width
    return covered, rank


@register_rule(aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.bincount, "torchvision.nms")
def _selected(op: Operation) -> None:
    """What is returned depends on values: all channels that are looked at are kept."""
    for tensor in tensors(op.args):
        op.pin(op.labels(tensor).layers)
    for output in op.outputs:
        op.label(output, [])


@register_rule(aten.index_fill)
def _fill(op: Operation) -> None:
    tensor, dim = op.args[0], op.args[1] % op.args[0].dim()
    op.pin(along(op.labels(tensor).layers, dim))
    op.label(op.outputs[0], [layer for layer in op.labels(tensor).layers if layer.shape[dim] == 1], like=[tensor])


@register_rule(aten.nll_loss_forward, aten.nll_loss2d_forward)
def _pick_classes(op: Operation) -> None:
    op.pin(op.labels(op.args[0]).layers)
    for output in op.outputs:
        op.label(output, [])


@register_rule(aten.tril, aten.triu)
def _triangle(op: Operation) -> None:
    """What is set to zero depends on positions along the last two dimensions, which are kept therefore."""
    tensor, layers = op.args[0], op.labels(op.args[0]).layers
    counted = [layer for layer in layers if max(layer.shape[-2:]) > 1]
    op.pin(counted)
    op.label(op.outputs[0], [layer for layer in layers if max(layer.shape[-2:]) == 1], like=[tensor])


@register_rule(aten._pack_padded_sequence)
def _pack(op: Operation) -> None:
    """Steps and batch become one dimension; channels stay where they are."""
    layers = op.labels(op.args[0]).layers
    op.pin(layer for layer in layers if max(layer.shape[:2]) > 1)
    op.label(op.outputs[0], [layer.without([0]) for layer in layers if max(layer.shape[:2]) == 1])


def _label_moved(op: Operation, tensor: Tensor, layers: list[Layer]) -> None:
    op.pin(layer for layer in layers if layer.size == 1)
    op.label(op.outputs[0], [layer for layer in layers if layer.size > 1], like=[tensor])
