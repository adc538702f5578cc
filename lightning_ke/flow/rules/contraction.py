"""Convolutions and matrix products: input channels meet the weight's input dimension, its output dimension flows on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ke.flow.labels import Layer, along, place
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.rules.attention import note_values
from lightning_ke.flow.rules.elementwise import merge
from lightning_ke.flow.sites import Groups
from lightning_ke.flow.variables import Channels

aten = torch.ops.aten


@register_rule(aten.convolution, aten._convolution)
def _convolution(op: Operation) -> None:
    tensor, weight, bias = op.args[0], op.args[1], op.argument(2, "bias")
    transposed, groups = op.args[6], op.args[8]
    output, labels = op.outputs[0], op.labels(tensor)
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    beside = _beside(op, labels.layers)
    op.see_image(labels.layers)
    entering = op.along(labels.layers, 1)
    op.take_in(entering)
    lies_on: dict[int, Channels | None] = dict.fromkeys(range(2, weight.dim()))  # no position of a kernel is dropped
    if groups == 1 and not labels.uniform and 1 not in labels.loose:
        lies_on[in_dim] = entering
    if not op.takes(weight, lies_on, reads=True):
        _beside(op, op.labels(weight).layers)
        if groups == 1:
            op.contract(tensor, 1, weight, in_dim)
    if groups > 1:
        op.tracer.size(tensor)
        leaving = _grouped(op, tensor, weight, entering, groups, transposed)
    else:
        leaving = op.channels(weight, out_dim)
    op.follow(bias, leaving)
    if leaving is not None and not (groups > 1 and (op.labels(weight).fixed or 0 in op.labels(weight).loose)):
        op.produce(leaving, weight, entering)
    batch = [layer for layer in labels.layers if layer.dims == (0,)]
    op.label(output, [*batch, *beside, *op.spread(leaving, 1, output)], like=[tensor, weight])


def _beside(op: Operation, layers: Sequence[Layer]) -> list[Layer]:
    """Channels along the spatial dimensions: a kernel that is wider than one entry would mix them, so they are kept."""
    found = [layer for layer in layers if layer.shape[1] == 1 and layer.dims not in ((), (0,))]
    if found and (math.prod(op.args[1].shape[2:]) > 1 or op.outputs[0].shape[2:] != op.args[0].shape[2:]):
        op.pin(found)
        return []
    return found


def _grouped(
    op: Operation, tensor: Tensor, weight: Tensor, entering: Channels | None, groups: int, transposed: bool
) -> Channels | None:
    own, inner = op.channels(weight, 0), op.channels(weight, 1)
    if own is None:
        if 0 in op.labels(weight).loose and groups == weight.shape[0]:
            return entering  # one kernel for every channel, however many there are
        op.meet(entering, None)
        op.meet(inner, None)
        return None
    if transposed:
        op.meet(entering, own)
        leaving = op.tracer.across_groups(own, inner, groups, weight.shape[1])
        op.tracer.groups.append(Groups(op.tracer.module, groups, own, leaving, inner))
        return leaving
    if inner is None and entering is None:
        op.variables.pin(own)
        return None
    op.tracer.groups.append(Groups(op.tracer.module, groups, own, entering, inner))
    return own


@register_rule("torchvision.deform_conv2d")
def _deformed_convolution(op: Operation) -> None:
    """A convolution whose kernel reads at places that are computed: those are needed whole."""
    tensor, weight, offset, scale, bias = op.args[:5]
    groups, offset_groups = op.args[11], op.args[12]
    for places in (offset, scale):
        op.pin(op.labels(places).layers)
    entering = op.channels(tensor, 1)
    if offset_groups > 1:
        op.meet(entering, None)
    if groups > 1:
        leaving = _grouped(op, tensor, weight, entering, groups, False)
    else:
        op.contract(tensor, 1, weight, 1)
        leaving = op.channels(weight, 0)
    op.follow(bias, leaving)
    if leaving is not None:
        op.produce(leaving, weight, entering)
    op.label(op.outputs[0], op.spread(leaving, 1, op.outputs[0]), like=[tensor, weight])


@register_rule(aten.mm, aten.bmm, aten._sparse_mm)
def _mm(op: Operation) -> None:
    _product(op, op.args[0], op.args[1])


@register_rule(aten.addmm, aten.baddbmm, aten._sparse_addmm)
def _addmm(op: Operation) -> None:
    bias, left, right = op.args[:3]
    output = op.outputs[0]
    _product(op, left, right)
    op.accompany(bias, output)
    heads = op.labels(output).heads
    op.label(output, merge(op, [output, bias], output.dim()), like=[output, bias], heads=heads)


@register_rule(aten.mv, aten.dot, aten.vdot)
def _matrix_vector(op: Operation) -> None:
    left, right = op.args
    op.contract(left, left.dim() - 1, right, 0)
    rows = op.channels(left, 0) if left.dim() == 2 else None
    op.label(op.outputs[0], op.spread(rows, 0, op.outputs[0]), like=[left, right])


def _product(op: Operation, left: Tensor, right: Tensor) -> None:
    """``left @ right`` for matrices or batches of matrices."""
    output = op.outputs[0]
    row, column = output.dim() - 2, output.dim() - 1
    op.contract(left, column, right, row)
    layers = []
    for source, inner, outer, other, dim in ((left, column, row, right, row), (right, row, column, left, column)):
        beside = op.labels(other).layers
        for layer in op.labels(source).layers:
            if layer.dims == (0,) and beside and row > 0:
                if _same_heads(op, layer, beside):
                    layers += [layer] if source is left else []
                else:
                    op.pin([layer])  # one number per head beside the heads' channels: every head stays
            elif layer.shape[inner] == 1:
                layers.append(layer)
        leaving = op.along(_leaving(op, source, inner), outer)
        if leaving is not None:
            op.produce(leaving, source, op.channels(other, dim))
    op.label(output, layers, like=[left, right], heads=_heads(op, left, right))


def _same_heads(op: Operation, layer: Layer, others: Sequence[Layer]) -> bool:
    """Join the heads of two factors that an attention which keeps or drops whole heads multiplies one by one."""
    partner = next((other for other in others if other.dims == (0,)), None)
    if partner is None or not op.tracer.keeps_whole_heads:
        return False
    op.variables.join(layer.flat, partner.flat)
    return True


def _leaving(op: Operation, source: Tensor, inner: int) -> Sequence[Layer]:
    """The layers of a factor of which a product's own rows and columns are made."""
    layers = op.labels(source).layers
    if source.dim() > 2:
        # Queries that meet a table of positions head by head (SAM) carry a factor of their attention (see `scales`)
        # that must not reach the table: such heads stay whole.
        return layers
    # Heads that are rows beside the channels that are summed over: all of them stay (see `Operation.contract`).
    return [layer for layer in layers if layer.shape[inner] == 1]


def _heads(op: Operation, left: Tensor, right: Tensor) -> Channels | None:
    """What an attention's product leaves for the next one: queries, keys and values keep the same channels."""
    if op.labels(left).weight or op.labels(right).weight:
        return None
    column, row = left.dim() - 1, right.dim() - 2
    values = op.channels(right, right.dim() - 1)
    queries = op.labels(left).heads
    if queries is not None and values is not None and len(queries) == len(values):
        op.variables.join(queries, values)
    if values is not None:
        note_values(op, values)
    for side, dim in ((left, column), (right, row)):
        summed = op.channels(side, dim)
        if summed is not None:
            op.tracer.summed[int(summed[0])] = tuple(along(op.labels(side).layers, dim))
            return summed
    return range(0)


@register_rule(aten._trilinear)
def _bilinear(op: Operation) -> None:
    """``nn.Bilinear``: each of its weight's matrices takes rows of one input and columns of the other."""
    left, weight, right = op.args[:3]
    if op.args[3:7] != ([1, 3], [0], [1, 2], [2, 3]):
        for tensor in (left, weight, right):
            op.pin(op.labels(tensor).layers)
        op.label(op.outputs[0], [])
        return
    op.contract(left, 1, weight, 1)
    op.contract(right, 1, weight, 2)
    leaving = op.channels(weight, 0)
    if leaving is not None:
        op.produce(leaving, weight, op.channels(left, 1))
    op.label(op.outputs[0], op.spread(leaving, 1, op.outputs[0]))


@register_rule(aten._cdist_forward, aten._euclidean_dist)
def _distances(op: Operation) -> None:
    """Rows meet rows as in a product with the second factor's transpose."""
    left, right = op.args[:2]
    last = left.dim() - 1
    op.contract(left, last, right, last)
    layers = [layer for layer in op.labels(left).layers if layer.shape[last] == 1]
    swapped = (*range(last - 1), last, last - 1)
    layers += [layer.permute(swapped) for layer in op.labels(right).layers if layer.shape[last] == 1]
    op.label(op.outputs[0], layers)


@register_rule(aten.embedding_renorm_)
def _bound_lengths(op: Operation) -> None:
    """Rows that are too long are shortened, in place; dropped channels are zero and add nothing to a length."""
    op.tracer.label(op.outputs[0], op.labels(op.args[0]))


@register_rule(aten.embedding, aten._embedding_bag, aten._embedding_bag_forward_only)
def _embedding(op: Operation) -> None:
    weight, output = op.args[0], op.outputs[0]
    op.pin(along(op.labels(weight).layers, 0))
    leaving = op.channels(weight, 1)
    if leaving is not None:
        op.produce(leaving, weight, None)
    op.label(output, [] if leaving is None else [place(leaving, output.dim() - 1, output.dim())])


@register_rule(aten._weight_norm_interface)
def _weight_norm(op: Operation) -> None:
    direction, length = op.args[:2]
    op.label(op.outputs[0], merge(op, [direction, length], direction.dim()), like=[direction, length])
