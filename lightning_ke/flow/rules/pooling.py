"""Pooling, resizing and reductions: channels stay where they are, the other dimensions change their size."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_ke.flow.labels import Layer, along, place
from lightning_ke.flow.registry import Operation, register_rule
from lightning_ke.flow.variables import as_array, as_rows

aten = torch.ops.aten


@register_rule(
    aten.max_pool3d_with_indices,
    aten.avg_pool3d,
    aten._adaptive_avg_pool3d,
    aten.adaptive_max_pool3d,
    aten.upsample_nearest3d,
    aten.upsample_trilinear3d,
    aten.replication_pad3d,
    aten.reflection_pad3d,
)
def _pool_3d(op: Operation) -> None:
    _resize(op, 3)


@register_rule(
    aten.max_pool2d_with_indices,
    aten.avg_pool2d,
    aten._adaptive_avg_pool2d,
    aten.adaptive_max_pool2d,
    aten.upsample_nearest2d,
    aten._upsample_nearest_exact2d,
    aten.upsample_bilinear2d,
    aten._upsample_bilinear2d_aa,
    aten.upsample_bicubic2d,
    aten._upsample_bicubic2d_aa,
    aten.fractional_max_pool2d,
    aten.replication_pad2d,
    aten.reflection_pad2d,
)
def _pool_2d(op: Operation) -> None:
    _resize(op, 2)


@register_rule(
    aten.max_pool1d_with_indices,
    aten.avg_pool1d,
    aten.adaptive_avg_pool1d,
    aten.upsample_nearest1d,
    aten.upsample_linear1d,
    aten.replication_pad1d,
    aten.reflection_pad1d,
)
def _pool_1d(op: Operation) -> None:
    _resize(op, 1)


@register_rule(aten.grid_sampler_2d, aten.grid_sampler_3d)
def _sample(op: Operation) -> None:
    """The grid's last dimension holds places, which are all needed."""
    op.pin(op.labels(op.args[1]).layers)
    _resize(op, op.args[0].dim() - 2)


@register_rule(aten.max_unpool2d, aten.max_unpool3d)
def _unpool(op: Operation) -> None:
    """Each channel is spread out by its own places."""
    tensor, places = op.args[:2]
    op.meet(op.channels(tensor, 1), op.channels(places, 1))
    _resize(op, tensor.dim() - 2)


@register_rule(aten.affine_grid_generator)
def _grid(op: Operation) -> None:
    op.pin(op.labels(op.args[0]).layers)
    op.label(op.outputs[0], [])


@register_rule("torchvision.roi_align", "torchvision.roi_pool")
def _pool_regions(op: Operation) -> None:
    """Every region is cut out of all channels; its place is needed whole."""
    tensor, output = op.args[0], op.outputs[0]
    op.pin(op.labels(op.args[1]).layers)
    op.pin(layer for layer in op.labels(tensor).layers if layer.dims != (1,))
    for found in op.outputs:
        op.label(found, op.spread(op.channels(tensor, 1), 1, output))


@register_rule(aten._fft_r2c, aten._fft_c2c, aten._fft_c2r)
def _transform(op: Operation) -> None:
    """A Fourier transform mixes what lies along its dimensions: channels there are kept, others stay where they are."""
    tensor, dims = op.args[0], {dim % op.args[0].dim() for dim in op.args[1]}
    layers = op.labels(tensor).layers
    mixed = [layer for layer in layers if dims.intersection(layer.dims)]
    op.pin(mixed)
    op.label(op.outputs[0], [layer for layer in layers if not dims.intersection(layer.dims)], like=[tensor])


def _resize(op: Operation, spatial: int) -> None:
    """The last `spatial` dimensions change; channels along them would be mixed, so they stay together."""
    tensor = op.args[0]
    layers = op.labels(tensor).layers
    op.see_image(layers)
    first = tensor.dim() - spatial
    kept = []
    for layer in layers:
        if all(dim < first for dim in layer.dims):
            kept.append(layer)
        elif layer.shape[first - 1] > 1:
            kept.append(place(op.uniform(layer, first - 1), first - 1, tensor.dim()))
        else:
            op.pin([layer])
    for output in op.outputs:
        op.label(output, kept, like=[tensor])


@register_rule(aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.var_mean, aten.std_mean)
@register_rule(aten.max.dim, aten.min.dim, aten.logsumexp, aten.any, aten.all, aten.prod, aten.max, aten.min)
def _reduce(op: Operation) -> None:
    if len(op.args) > 1 and isinstance(op.args[1], Tensor):  # the element-wise maximum of two tensors
        from lightning_ke.flow.rules.elementwise import elementwise

        elementwise(op)
        return
    _reduce_along(op, op.argument(1, "dim", None))


@register_rule(aten._is_all_true, aten._is_any_true)
def _checked(op: Operation) -> None:
    """What `torch.distributions` asks of its arguments."""
    op.label(op.outputs[0], [])


@register_rule(aten.aminmax)
def _extent(op: Operation) -> None:
    _reduce_along(op, op.kwargs.get("dim"))


@register_rule(aten.linalg_vector_norm, aten.norm)
def _norm(op: Operation) -> None:
    _reduce_along(op, op.argument(2, "dim", None))


def _reduce_along(op: Operation, dims: int | list[int] | None) -> None:
    """A reduction over channels takes the kept ones; the slim network says what it means for the fit hypothesis."""
    tensor = op.args[0]
    if dims is None or dims == []:
        reduced = list(range(tensor.dim()))
    else:
        reduced = sorted(dim % tensor.dim() for dim in ([dims] if isinstance(dims, int) else dims))
    for output in op.outputs:
        layers = []
        for layer in op.labels(tensor).layers:
            rest = _reduce_layer(op, layer, reduced)
            if rest is not None:
                layers.append(rest if output.dim() == tensor.dim() else rest.without(reduced))
        op.label(output, layers, like=[tensor])


def _reduce_layer(op: Operation, layer: Layer, reduced: list[int]) -> Layer | None:
    dims = layer.dims
    taken = [dim for dim in dims if dim in reduced]
    if not taken:
        return layer
    if len(taken) == len(dims):
        return None
    # (head, channel) reduced along one of both: each head keeps the same share.
    variables = op.uniform(layer, dims[-1])
    if dims[-1] in taken:
        return op.tracer.one_of_each_row(layer)
    return place(variables, dims[-1], len(layer.shape))


@register_rule(aten._softmax, getattr(aten, "_safe_softmax", aten._softmax), aten._log_softmax)
def _softmax(op: Operation) -> None:
    labels = op.labels(op.args[0])
    op.label(op.outputs[0], labels.layers, like=[op.args[0]], heads=labels.heads)


@register_rule(aten.topk, aten.sort, aten.argmax, aten.argmin, aten.cumsum, aten.argsort, aten.kthvalue, aten.cumprod)
@register_rule(aten.median, aten.nanmedian, aten.mode, aten.logcumsumexp)
def _ordered(op: Operation) -> None:
    """Positions are counted along a dimension: channels along it are kept, others stay where they are."""
    tensor = op.args[0]
    named = {aten.topk: (2, -1), aten.sort: (1, -1), aten.argsort: (1, -1), aten.kthvalue: (2, -1)}
    position, default = named.get(op.operator.overloadpacket, (1, None))
    dim = op.argument(position, "dim", default)
    layers = op.labels(tensor).layers
    if dim is None:
        op.pin(layers)
        return
    dim %= tensor.dim()
    op.pin(along(layers, dim))
    for output in op.outputs:
        kept = [layer for layer in layers if layer.shape[dim] == 1]
        same = output.dim() == tensor.dim()
        op.label(output, [layer if same else layer.without([dim]) for layer in kept], like=[tensor])


@register_rule(aten.im2col)
def _im2col(op: Operation) -> None:
    tensor, kernel = op.args[0], op.args[1]
    variables = op.channels(tensor, 1)
    op.pin(layer for dim in (2, 3) for layer in along(op.labels(tensor).layers, dim))
    repeated = None if variables is None else np.repeat(as_array(variables), kernel[0] * kernel[1])
    op.label(op.outputs[0], op.spread(repeated, 1, op.outputs[0]), like=[tensor])


@register_rule(aten.col2im)
def _col2im(op: Operation) -> None:
    tensor, kernel = op.args[0], op.args[2]
    variables = op.channels(tensor, 1)
    if variables is not None:
        each = as_rows(variables, len(variables) // (kernel[0] * kernel[1]))
        op.variables.join(each, each[:, :1])
        variables = each[:, 0]
    op.label(op.outputs[0], op.spread(variables, 1, op.outputs[0]), like=[tensor])
