"""Results of operations on meta tensors, by the shortest way.

torch computes most of them in Python, in a hundred to two thousand microseconds each; a network has hundreds. The
operations that networks are made of are answered here directly, where all tensors are contiguous and of one dtype; for
all else a shape function returns None and torch is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

META = torch.device("meta")

ShapeFunction = Callable[[Sequence[Any], dict[str, Any]], Any]


def empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A contiguous meta tensor.

    Args:
        like: Gives the dtype.
        shape: Its shape.
    """
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= size or 1
    strides.reverse()
    return torch.empty_strided(shape, strides, dtype=like.dtype, device=META)


def same(like: Tensor) -> Tensor:
    """A meta tensor of the same shape and dtype, laid out in memory as element-wise operations do it.

    Args:
        like: A meta tensor.
    """
    if like.is_contiguous():
        return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=META)
    return torch.empty_like(like)


def _alike(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """Operations whose result is like their first argument."""
    return None if kwargs.get("memory_format") is not None else same(args[0])


def _clone(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    layout = kwargs.get("memory_format")
    if layout is torch.contiguous_format:
        return empty(args[0], args[0].shape)
    return None if layout is not None else same(args[0])


def _alike_in_place(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    first: Tensor = args[0]
    return first


def _softmax(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    return None if (len(args) > 2 and args[2]) or not args[0].is_contiguous() else same(args[0])


def _binary(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """Arithmetic of two floating-point tensors that broadcast to the larger one, or of a tensor and a number."""
    left, right = args[0], args[1]
    if not left.is_floating_point():
        return None
    if not isinstance(right, Tensor):
        return same(left) if isinstance(right, (int, float)) else None
    if right.dtype != left.dtype:
        return None
    if left.shape == right.shape and left.stride() == right.stride():
        return same(left)
    if left.is_contiguous() and _fits(right, left) and (right.is_contiguous() or 1 not in left.shape[1:]):
        return same(left)  # its order of dimensions decides where it has one, however the other lies in memory
    if not left.is_contiguous() or not right.is_contiguous():
        return None
    return same(right) if _fits(left, right) else None


def _fits(small: Tensor, large: Tensor) -> bool:
    """Whether one tensor broadcasts to the shape of another."""
    pad = large.dim() - small.dim()
    return pad >= 0 and all(size in (1, large.shape[pad + dim]) for dim, size in enumerate(small.shape))


def _bounded(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """Clamping a floating-point tensor by numbers."""
    return None if kwargs or not args[0].is_floating_point() else same(args[0])


def _filled(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    tensor, mask = args[:2]
    return same(tensor) if tensor.is_contiguous() and _fits(mask, tensor) else None


def _roll(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    return empty(args[0], args[0].shape)


def _binary_in_place(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    return args[0] if _binary(args, kwargs) is not None else None


def _convolution(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    tensor, weight, bias, stride, padding, dilation, transposed = args[:7]
    sizes, kernel = tensor.shape, weight.shape
    spatial = len(sizes) - 2
    if transposed or len(sizes) != len(kernel) or tensor.dtype != weight.dtype:
        return None
    if sizes[1] != kernel[1] * args[8] or (bias is not None and bias.shape != kernel[:1]):
        return None
    if not len(stride) == len(padding) == len(dilation) == spatial:
        stride, padding, dilation = ([*option] * (spatial // len(option)) for option in (stride, padding, dilation))
    shape = [sizes[0], kernel[0]]
    for dim, (step, pad, spread) in enumerate(zip(stride, padding, dilation, strict=True), 2):
        room = sizes[dim] + 2 * pad - spread * (kernel[dim] - 1) - 1
        if room < 0:
            return None
        shape.append(room // step + 1)
    return empty(tensor, shape) if tensor.is_contiguous() and weight.is_contiguous() else None


def _batch_norm(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, ...] | None:
    nothing = empty(args[0], (0,))
    return same(args[0]), nothing, nothing


def _native_batch_norm(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, ...] | None:
    return None if args[5] else _batch_norm(args, kwargs)


def _layer_norm(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, ...] | None:
    first, shape = args[0], list(args[1])
    if not first.is_contiguous() or list(first.shape[first.dim() - len(shape) :]) != shape:
        return None
    statistics = empty(first, [*first.shape[: first.dim() - len(shape)], *(1 for _ in shape)])
    return same(first), statistics, statistics


def _product(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    left, right = args[-2:]
    if left.dtype != right.dtype or left.shape[-1] != right.shape[-2] or left.shape[:-2] != right.shape[:-2]:
        return None
    return empty(left, (*left.shape[:-1], right.shape[-1]))


def _biased_product(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    found = _product(args, kwargs)
    return found if found is not None and args[0].shape == found.shape[-1:] else None


def _mean(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    first, dims, keep = args[0], args[1], len(args) > 2 and args[2]
    if not dims or kwargs or not first.is_floating_point():
        return None
    return _reduced(first, dims, keep)


def _vector_norm(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    first, dims, keep = args[0], args[2] if len(args) > 2 else None, len(args) > 3 and args[3]
    return None if not dims or kwargs or not first.is_floating_point() else _reduced(first, dims, keep)


def _reduced(tensor: Tensor, dims: Sequence[int], keep: bool) -> Tensor:
    gone = {dim % tensor.dim() for dim in dims}
    sizes = enumerate(tensor.shape)
    return empty(tensor, [1 if dim in gone else size for dim, size in sizes if keep or dim not in gone])


def _max_pool(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
    tensor, kernel, *rest = args
    defaults: tuple[Any, ...] = ([], [0], [1], False)
    stride, padding, dilation, ceil = (*rest, *defaults[len(rest) :])
    if kwargs or not tensor.is_contiguous() or list(dilation) not in ([1], [1, 1]):
        return None
    pooled = _pooled(tensor, kernel, stride or kernel, padding, ceil)
    if pooled is None:
        return None
    return pooled, torch.empty_strided(pooled.shape, pooled.stride(), dtype=torch.int64, device=META)


def _average_pool(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    tensor, kernel, *rest = args
    defaults: tuple[Any, ...] = ([], [0], False)
    stride, padding, ceil = (*rest, *defaults[len(rest) :])[:3]
    return None if kwargs or not tensor.is_contiguous() else _pooled(tensor, kernel, stride or kernel, padding, ceil)


def _pooled(
    tensor: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil: bool
) -> Tensor | None:
    shape = list(tensor.shape)
    for dim in (-2, -1):
        size, step, pad = (option[dim if len(option) > 1 else 0] for option in (kernel, stride, padding))
        room = shape[dim] + 2 * pad - size
        if room < 0 or tensor.dim() != 4:
            return None
        count = room // step + 1
        # A last window that is not whole counts if it begins inside.
        if ceil and room % step and count * step < shape[dim] + pad:
            count += 1
        shape[dim] = count
    return empty(tensor, shape)


def _cat(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    parts = args[0]
    first = parts[0]
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % max(first.dim(), 1)
    shape = list(first.shape)
    for part in parts:
        if part.dim() != first.dim() or part.dtype != first.dtype or not part.is_contiguous():
            return None
        shape[dim] = part.shape[dim]
        if list(part.shape) != shape:
            return None
    shape[dim] = sum(part.shape[dim] for part in parts)
    return empty(first, shape) if shape else None


_IN_PLACE = (aten.relu_, aten.silu_, aten.gelu_, aten.sigmoid_, aten.tanh_, aten.hardtanh_, aten.hardswish_)

#: The shape functions, by operator.
SHAPES: dict[torch._ops.OpOverload, ShapeFunction] = {
    aten.relu.default: _alike,
    aten.silu.default: _alike,
    aten.gelu.default: _alike,
    aten.tanh.default: _alike,
    aten.sigmoid.default: _alike,
    aten.exp.default: _alike,
    aten.hardtanh.default: _alike,
    aten.hardswish.default: _alike,
    aten.hardsigmoid.default: _alike,
    aten.leaky_relu.default: _alike,
    aten.clone.default: _clone,
    **dict.fromkeys((packet.default for packet in _IN_PLACE), _alike_in_place),
    aten.hardsigmoid_.default: _alike_in_place,
    aten.leaky_relu_.default: _alike_in_place,
    aten._softmax.default: _softmax,
    getattr(aten, "_safe_softmax", aten._softmax).default: _softmax,  # torch >= 2.5
    **dict.fromkeys((packet.Tensor for packet in (aten.add, aten.sub, aten.mul, aten.div)), _binary),
    **dict.fromkeys((packet.Tensor for packet in (aten.add_, aten.sub_, aten.mul_, aten.div_)), _binary_in_place),
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _native_batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _biased_product,
    aten.mean.dim: _mean,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.clamp.default: _bounded,
    aten.clamp_min.default: _bounded,
    aten.masked_fill.Scalar: _filled,
    aten.roll.default: _roll,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.cat.default: _cat,
}
