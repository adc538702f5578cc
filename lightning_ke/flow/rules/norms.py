"""Normalisation: its parameters and statistics follow the channels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ke.flow.labels import Layer, along, place
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.sites import Groups

aten = torch.ops.aten


@register_rule(
    aten.native_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten._batch_norm_with_update,
    aten._batch_norm_no_update,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
)
def _batch_norm(op: Operation) -> None:
    tensor = op.args[0]
    layers = op.labels(tensor).layers
    variables = op.along(layers, 1)
    parameters = [parameter for parameter in op.args[1:5] if isinstance(parameter, Tensor)]
    for parameter in parameters:
        op.follow(parameter, variables)
    layers = _through_weight(op, layers, 1, op.args[1], op.args[2])
    op.label(op.outputs[0], layers, like=[tensor, *parameters])


@register_rule(aten.native_layer_norm, getattr(aten, "_fused_rms_norm", aten.native_layer_norm))
def _layer_norm(op: Operation) -> None:
    tensor, shape = op.args[0], op.args[1]
    first = tensor.dim() - len(shape)
    op.tracer.size(tensor)
    for position in range(len(shape)):
        variables = op.channels(tensor, first + position)
        for parameter in op.args[2:4]:
            if isinstance(parameter, Tensor):
                op.follow(parameter, variables, position)
    weight, bias = (*op.args[2:4], None, None)[:2]
    layers = op.labels(tensor).layers
    if len(shape) == 1:
        layers = _through_weight(op, layers, first, weight, bias)
    op.label(op.outputs[0], layers, like=[tensor])


@register_rule(aten.native_group_norm)
def _group_norm(op: Operation) -> None:
    tensor, weight, bias = op.args[:3]
    groups = op.args[6]
    variables = op.channels(tensor, 1)
    for parameter in (weight, bias):
        op.follow(parameter, variables)
    if variables is not None and groups > 1:
        op.tracer.groups.append(Groups(op.tracer.module, groups, variables, None, None))
    for dim in range(2, tensor.dim()):
        op.pin(along(op.labels(tensor).layers, dim))
    op.label(op.outputs[0], op.labels(tensor).layers, like=[tensor])


def _through_weight(
    op: Operation, layers: tuple[Layer, ...], dim: int, weight: Tensor | None, bias: Tensor | None
) -> tuple[Layer, ...]:
    """The weight is where a factor on the result can be put, so its variables flow on."""
    own = () if weight is None else op.labels(weight).layers
    if not own or weight is None:
        return layers
    if bias is not None:
        op.accompany(bias, weight)
    if len(own) > 1 or not op.labels(weight).weight:
        return layers
    through = own[0].flat
    return tuple(
        [
            place(through, dim, len(layer.shape)).expand(layer.shape) if layer.dims[-1] == dim else layer
            for layer in layers
        ]
    )
