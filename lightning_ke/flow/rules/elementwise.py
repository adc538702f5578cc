"""Element-wise operations: whatever lies on each other shares its fate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ke.flow.labels import Layer
from lightning_ke.flow.leaves import replaced
from lightning_ke.flow.registry import Operation, register_rule

aten = torch.ops.aten
_ADDITIONS = frozenset({aten.add, aten.add_, aten.sub, aten.sub_})
_MULTIPLICATIONS = frozenset({aten.mul, aten.mul_})


def elementwise(op: Operation) -> None:
    """The rule of every operation that computes each output position from the same position of its inputs.

    Args:
        op: An operation that broadcasts its tensors.
    """
    tensors = [arg for arg in (*op.args, *op.kwargs.values()) if isinstance(arg, Tensor)]
    if len(tensors) == len(op.outputs) == 1 and tensors[0].dim() == op.outputs[0].dim():
        labels = op.labels(tensors[0])
        if labels.uniform or labels.loose:
            labels = replaced(labels, uniform=False, loose=frozenset())
        op.tracer.label(op.outputs[0], labels)
        return
    heads = next((op.labels(t).heads for t in tensors if op.labels(t).heads is not None), None)
    for output in op.outputs:
        layers = merge(op, tensors, output.dim())
        op.label(output, _through_parameter(op, tensors, layers), like=tensors, heads=heads)


def _through_parameter(op: Operation, tensors: Sequence[Tensor], layers: list[Layer]) -> list[Layer]:
    """A parameter that is added or multiplied is where a factor on the result can be put."""
    weights = [tensor for tensor in tensors if op.labels(tensor).weight and op.labels(tensor).layers]
    if len(weights) == len(tensors) == 2 and op.operator.overloadpacket in _ADDITIONS:
        op.accompany(*sorted(weights, key=Tensor.dim))  # the bias of what a layer makes of learned queries
    if len(weights) != 1 or len(tensors) != 2:
        return layers
    own = op.labels(weights[0]).layers
    if op.operator.overloadpacket in _ADDITIONS:
        other = tensors[0] if tensors[1] is weights[0] else tensors[1]
        op.accompany(weights[0], other)
    elif op.operator.overloadpacket in _MULTIPLICATIONS and len(own) == len(layers) == 1:
        (layer,) = layers
        pad = len(layer.shape) - len(own[0].shape)
        if layer.dims[-1] == pad + own[0].dims[-1]:
            return [own[0].reshape((1,) * pad + own[0].shape).expand(layer.shape)]
    return layers


def merge(op: Operation, tensors: Sequence[Tensor], ndim: int) -> list[Layer]:
    """Join the layers of tensors that broadcast against each other.

    Args:
        op: The operation.
        tensors: Its tensors.
        ndim: Number of dimensions of the result.

    Returns:
        The layers of the result.
    """
    operands = [_broadcast(op, tensor, ndim) for tensor in tensors]
    pinned: set[int] = set()
    # A layer that meets a full-sized dimension of a tensor that is always kept there is always kept as well.
    for (_, layers, _), (shape, others, uniform) in itertools.permutations(operands, 2):
        covered = {dim for other in others for dim in other.dims}
        for layer in layers:
            dims = layer.dims
            if uniform or covered.intersection(dims):
                continue
            if shape[dims[-1]] > 1:
                op.pin([layer])
                pinned.add(id(layer))
            elif any(shape[dim] > 1 for dim in dims):
                op.uniform(layer, dims[-1])
    merged: list[Layer] = []
    for _, layers, _ in operands:
        before, free = len(merged), list(range(len(merged)))
        for layer in layers:
            if id(layer) in pinned:
                continue
            # Two layers along one dimension (rows and columns of a product, flattened) meet two others one by one.
            index = _partner(layer, merged, free)
            if index is None:
                index = _partner(layer, merged, range(before))
            if index is None:
                merged.append(layer)
            else:
                merged[index] = _join(op, merged[index], layer)
                if index in free:
                    free.remove(index)
    return merged


def _broadcast(op: Operation, tensor: Tensor, ndim: int) -> tuple[Sequence[int], Sequence[Layer], bool]:
    """Shape and layers of a tensor with as many dimensions as the result, and if it fits to channels of any kind."""
    labels = op.labels(tensor)
    shape: Sequence[int] = tensor.shape
    if labels.loose:
        shape = [1 if dim in labels.loose else size for dim, size in enumerate(shape)]
    if len(shape) < ndim:
        pad = (1,) * (ndim - len(shape))
        return (*pad, *shape), [layer.reshape(pad + layer.shape) for layer in labels.layers], labels.uniform
    return shape, labels.layers, labels.uniform


def _partner(layer: Layer, found: Sequence[Layer], among: Sequence[int]) -> int | None:
    """Which of some layers found so far lies on another one: along the same dimensions, or the last of them, or any."""
    dims = layer.dims
    for fits in (
        lambda other: other == dims,
        lambda other: other[-1] == dims[-1],
        lambda other: bool(set(other).intersection(dims)),
    ):
        for index in among:
            if fits(found[index].dims):
                return index
    return None


def _join(op: Operation, left: Layer, right: Layer) -> Layer:
    wide, narrow = (left, right) if len(left.dims) >= len(right.dims) else (right, left)
    if wide.dims == narrow.dims:
        op.variables.join(wide.flat, narrow.flat)
    elif len(wide.dims) == len(narrow.dims) or wide.dims[-1] in narrow.dims:
        op.variables.join(wide.array, narrow.array)
    else:
        # One number per head beside (head, channel): every head stays, with the same share of its channels.
        op.pin([narrow])
        op.uniform(wide, wide.dims[-1])
    return wide


@register_rule(
    aten.hardswish,
    aten.hardsigmoid,
    aten.hardtanh,
    aten.relu6,
    aten.elu,
    aten.celu,
    aten.leaky_relu,
    aten.softplus,
    aten.prelu,
    aten._prelu_kernel,
    aten.dropout,
    aten.native_dropout,
    aten.bernoulli,
    aten._to_copy,
    aten.clone,
    aten.fill,
    aten.zero,
    aten.lift_fresh,
    aten.detach,
    aten.alias,
    aten.view_as,
    aten.masked_fill,
    aten.where,
    aten.copy,
    aten.clamp,
    aten.nan_to_num,
    aten.zeros_like,
    aten.ones_like,
    aten.full_like,
    aten.empty_like,
    aten.rand_like,
    aten.randn_like,
    aten.rrelu_with_noise,
    aten.complex,
    aten.polar,
    aten._conj,
    aten.uniform,
    aten.normal,
    aten.exponential,
    aten.geometric,
    aten.log_normal,
    aten.cauchy,
    aten.renorm,
    aten.fake_quantize_per_tensor_affine_cachemask,
)
def _pointwise(op: Operation) -> None:
    elementwise(op)


@register_rule(aten.fake_quantize_per_channel_affine_cachemask)
def _quantize_channels(op: Operation) -> None:
    tensor, axis = op.args[0], op.args[3]
    for parameter in op.args[1:3]:
        op.read(parameter, {0: op.channels(tensor, axis)})
    for output in op.outputs:
        op.label(output, op.labels(tensor).layers, like=[tensor])


@register_rule(aten.mse_loss, aten.smooth_l1_loss, aten.huber_loss, aten.binary_cross_entropy, aten.soft_margin_loss)
def _loss(op: Operation) -> None:
    """Differences, or what is left of them once they are averaged: those of kept channels."""
    tensors = [arg for arg in op.args if isinstance(arg, Tensor)]
    layers = merge(op, tensors, max(tensor.dim() for tensor in tensors))
    op.label(op.outputs[0], layers if op.outputs[0].dim() else [])


@register_rule(aten.log_sigmoid_forward)
def _log_sigmoid(op: Operation) -> None:
    op.label(op.outputs[0], op.labels(op.args[0]).layers, like=[op.args[0]])  # the other output is for the gradient


def is_elementwise(operator: torch._ops.OpOverload) -> bool:
    """Whether torch itself calls an operation element-wise.

    Args:
        operator: The overload that was called.
    """
    return torch.Tag.pointwise in operator.tags
