"""Shapes that are computed directly are those that torch computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_ke.flow.dry import tensors
from lightning_ke.flow.shapes import SHAPES

aten = torch.ops.aten


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def told(value: Any) -> list[tuple[Any, ...]]:
    return [(found.shape, found.stride(), found.dtype, found.device.type) for found in tensors((value,))]


def agrees(func: torch._ops.OpOverload, args: Sequence[Any], **kwargs: Any) -> bool:
    """Whether a shape function answers; if it does, what it says must be what torch says."""
    answer = SHAPES[func](args, kwargs)
    if answer is None:
        return False
    expected = told(func(*args, **kwargs))
    found = told(answer)
    if func in NORMS:  # their statistics are only read by a backward pass
        expected, found = expected[:1], found[:1]
    assert found == expected, (func, args, kwargs)
    return True


NORMS = {
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.native_layer_norm.default,
}
IMAGE = tensor(2, 6, 9, 7)
HALF = tensor(2, 6, 9, 7, dtype=torch.float16)
UNARY = [func for func in SHAPES if len(func._schema.arguments) == 1 or func in (aten.gelu.default, aten.gelu_.default)]
CASES: dict[torch._ops.OpOverload, Sequence[tuple[Any, ...]]] = {
    **{func: [(IMAGE,), (HALF,), (IMAGE.permute(0, 2, 3, 1),)] for func in UNARY},
    aten.clone.default: [(IMAGE,), (IMAGE.permute(0, 2, 3, 1),)],
    **{func: [(IMAGE, 0.0, 6.0)] for func in (aten.hardtanh.default, aten.hardtanh_.default)},
    **{func: [(IMAGE, 0.1)] for func in (aten.leaky_relu.default, aten.leaky_relu_.default)},
    getattr(aten, "_safe_softmax", aten._softmax).default: [(IMAGE, 1)],  # torch >= 2.5
    aten._softmax.default: [(IMAGE, 1, False)],
    **{
        packet.Tensor: [
            (IMAGE, IMAGE), (IMAGE, tensor(6, 1, 1)), (tensor(6, 1, 1), IMAGE), (IMAGE, 2.0), (HALF, 3),
            (IMAGE.transpose(1, 2), IMAGE.transpose(1, 2)), (IMAGE, tensor(2, 6, 9, 1).expand(2, 6, 9, 7)),
            (IMAGE, tensor(2, 6, 7, 9).transpose(2, 3)), (tensor(2, 1, 3), tensor(3, 1, 2).permute(2, 1, 0)),
        ]
        for packet in (aten.add, aten.sub, aten.mul, aten.div)
    },
    **{
        packet.Tensor: [(IMAGE, IMAGE), (IMAGE, tensor(6, 1, 1)), (IMAGE, 2.0)]
        for packet in (aten.add_, aten.sub_, aten.mul_, aten.div_)
    },
    aten.native_batch_norm.default: [(IMAGE, *[tensor(6)] * 4, False, 0.1, 1e-5)],
    aten._native_batch_norm_legit_no_training.default: [(IMAGE, *[tensor(6)] * 4, 0.1, 1e-5)],
    aten.native_layer_norm.default: [(IMAGE, [7], tensor(7), tensor(7), 1e-5), (IMAGE, [9, 7], None, None, 1e-5)],
    aten.mm.default: [(tensor(3, 4), tensor(4, 5)), (tensor(3, 4), tensor(5, 4).t())],
    aten.bmm.default: [(tensor(2, 3, 4), tensor(2, 4, 5)), (tensor(2, 4, 3).transpose(1, 2), tensor(2, 4, 5))],
    aten.addmm.default: [(tensor(5), tensor(3, 4), tensor(5, 4).t())],
    aten.roll.default: [(IMAGE, [1, 2], [2, 3]), (IMAGE.permute(0, 2, 3, 1), [1], [1])],
    aten.masked_fill.Scalar: [(IMAGE, tensor(9, 7, dtype=torch.bool), -1.0), (IMAGE, IMAGE.bool(), 0.0)],
    aten.clamp.default: [(IMAGE, None, 4.0), (IMAGE, 0.0, 1.0), (IMAGE.permute(0, 2, 3, 1), 0)],
    aten.clamp_min.default: [(IMAGE, 1e-12), (HALF, 0)],
    aten.linalg_vector_norm.default: [(IMAGE, 2.0, [-1], True), (HALF, 2, [1, 2]), (IMAGE, 2)],
    aten.mean.dim: [(IMAGE, [2, 3], True), (IMAGE, [-1]), (IMAGE, [1, 2], False)],
    aten.cat.default: [([IMAGE, IMAGE], 1), ([IMAGE, tensor(2, 1, 9, 7)], -3), ([IMAGE],)],
}  # fmt: skip


ELSEWHERE = {aten.convolution.default, aten.avg_pool2d.default, aten.max_pool2d_with_indices.default}


def test_every_answer_is_tested() -> None:
    assert set(SHAPES) == set(CASES) | ELSEWHERE


@pytest.mark.parametrize("func", CASES, ids=str)
def test_the_answer_is_that_of_torch(func: torch._ops.OpOverload) -> None:
    assert [agrees(func, args) for args in CASES[func]].count(True) >= 1


sizes = st.integers(1, 3)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), sizes, sizes, sizes, st.integers(0, 2), sizes, st.integers(1, 3), st.booleans())
def test_convolutions(
    dims: int, channels: int, kernel: int, stride: int, padding: int, dilation: int, groups: int, bias: bool
) -> None:
    x = tensor(2, channels * groups, *(11 + dim for dim in range(dims)))
    weight = tensor(4 * groups, channels, *[kernel] * dims)
    options = ([stride], [padding] * dims, [dilation] * dims, False, [0] * dims, groups)
    assert agrees(aten.convolution.default, (x, weight, tensor(4 * groups) if bias else None, *options))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 1), st.booleans(), st.integers(5, 12))
def test_pooling(kernel: int, stride: int, padding: int, ceil: bool, size: int) -> None:
    padding = min(padding, kernel // 2)
    x, pads = tensor(1, 3, size, size + 1), [padding, padding]
    assert agrees(aten.avg_pool2d.default, (x, [kernel, kernel], [stride, stride], pads, ceil))
    arguments = (x, [kernel, kernel], [stride, stride], pads, [1, 1], ceil)
    assert agrees(aten.max_pool2d_with_indices.default, arguments)


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.add.Tensor, (IMAGE, HALF)),
        (aten.add.Tensor, (tensor(2, 1), tensor(1, 3))),
        (aten.mul.Tensor, (IMAGE.transpose(1, 2), tensor(2, 9, 6, 7))),
        (aten.mm.default, (tensor(3, 4), tensor(5, 6))),
        (aten.convolution.default, (IMAGE, tensor(4, 5, 1, 1), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
        (aten.convolution.default, (IMAGE, tensor(6, 4, 2, 2), None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1)),
        (aten.cat.default, ([IMAGE, HALF], 1)),
        (aten.cat.default, ([IMAGE, tensor(2, 6, 9, 5)], 1)),
    ],
)
def test_anything_unusual_is_left_to_torch(func: torch._ops.OpOverload, args: Sequence[Any]) -> None:
    assert SHAPES[func](args, {}) is None
