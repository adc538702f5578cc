"""Normalisation: its parameters and statistics follow the channels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ke.flow.labels import Layer, along, place
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.sites import Groups
from lightning_ke.flow.variables import Channels

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
    tensor, weight, bias, mean, variance = op.args[:5]
    layers = op.labels(tensor).layers
    op.see_image(layers)
    variables = op.along(layers, 1)
    op.read(mean, {0: variables})
    op.read(variance, {0: variables})
    layers = _through_weight(op, layers, 1, variables, weight, bias)
    parameters = [parameter for parameter in (weight, bias, mean, variance) if parameter is not None]
    op.label(op.outputs[0], layers, like=[tensor, *parameters])


@register_rule(aten.native_layer_norm, getattr(aten, "_fused_rms_norm", aten.native_layer_norm))
def _layer_norm(op: Operation) -> None:
    tensor, shape = op.args[0], op.args[1]
    first = tensor.dim() - len(shape)
    weight, bias = [parameter if isinstance(parameter, Tensor) else None for parameter in (*op.args[2:4], None)][:2]
    op.tracer.size(tensor)
    layers = op.labels(tensor).layers
    lies_on = {position: op.channels(tensor, first + position) for position in range(len(shape))}
    if len(shape) == 1:
        layers = _through_weight(op, layers, first, lies_on[0], weight, bias)
    else:
        op.read(weight, lies_on)
        op.read(bias, lies_on)
    op.label(op.outputs[0], layers, like=[tensor])


@register_rule(aten.native_group_norm)
def _group_norm(op: Operation) -> None:
    tensor, weight, bias = op.args[:3]
    groups = op.args[6]
    variables = op.channels(tensor, 1)
    for parameter in (weight, bias):
        op.read(parameter, {0: variables})
    if variables is not None and groups > 1:
        op.tracer.groups.append(Groups(op.tracer.module, groups, variables, None, None))
    for dim in range(2, tensor.dim()):
        op.pin(along(op.labels(tensor).layers, dim))
    op.label(op.outputs[0], op.labels(tensor).layers, like=[tensor])


def _through_weight(
    op: Operation,
    layers: tuple[Layer, ...],
    dim: int,
    variables: Channels | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> tuple[Layer, ...]:
    """The weight is where a factor on the result can be put, so its variables flow on."""
    if weight is None or op.labels(weight).uniform:
        op.follow(bias, variables)
        return layers
    through = op.channels(weight, 0)
    op.meet(through, variables)
    op.follow(bias, through)
    if through is None or weight.dim() > 1 or not op.labels(weight).weight:
        return layers
    return tuple(
        [
            place(through, dim, len(layer.shape)).expand(layer.shape) if layer.dims[-1] == dim else layer
            for layer in layers
        ]
    )
