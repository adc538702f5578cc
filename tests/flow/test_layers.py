"""torch's own layers by the shortest way call the operator that their own forward arrives at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.flow.dry import run, tensors
from lightning_ke.flow.layers import shortest_forward
from lightning_ke.flow.mode import OperationMode

aten = torch.ops.aten
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "convolution": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9, 9)),
    "without bias": (nn.Conv2d(4, 6, (1, 3), dilation=2, bias=False), (2, 4, 9, 9)),
    "1-d": (nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "3-d": (nn.Conv3d(4, 6, 3), (2, 4, 5, 5, 5)),
    "batch norm": (nn.BatchNorm2d(4), (2, 4, 9, 9)),
    "of vectors": (nn.BatchNorm1d(4), (2, 4)),
    "without parameters": (nn.BatchNorm2d(4, affine=False), (2, 4, 9, 9)),
    "relu": (nn.ReLU(), (2, 4)),
    "in place": (nn.ReLU(inplace=True), (2, 4)),
    "silu": (nn.SiLU(), (2, 4)),
    "hardswish": (nn.Hardswish(inplace=True), (2, 4)),
    "hardsigmoid": (nn.Hardsigmoid(), (2, 4)),
}
OTHERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 9, 9)),
    "same": (nn.Conv2d(4, 6, 2, padding="same"), (2, 4, 9, 9)),
    "no batch": (nn.Conv2d(4, 6, 3), (4, 9, 9)),
    "no statistics": (nn.BatchNorm2d(4, track_running_stats=False), (2, 4, 9, 9)),
    "linear": (nn.Linear(4, 6), (2, 4)),
}


class Recorder(OperationMode):
    """Writes down every operation but the making of empty tensors, which no forward reads here."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func is not aten.empty.memory_format:
            plain = [list(arg) if isinstance(arg, tuple) else arg for arg in args if not isinstance(arg, Tensor)]
            self.seen.append((func, [id(tensor) for tensor in tensors(args)], plain, kwargs))
        return run(func, args, kwargs)


def operations(layer: nn.Module, x: Tensor, *, shortest: bool) -> tuple[list[tuple[Any, ...]], Tensor]:
    recorder = Recorder()
    forward = shortest_forward(layer, recorder) if shortest else layer.forward
    with torch.no_grad(), recorder:
        return recorder.seen, forward(x)


@pytest.mark.parametrize("name", [*LAYERS, *OTHERS])
def test_the_operator_is_that_of_the_own_forward(name: str) -> None:
    layer, shape = {**LAYERS, **OTHERS}[name]
    layer = layer.to("meta").eval()
    x = torch.empty(shape, device="meta")
    expected, y = operations(layer, x, shortest=False)
    found, z = operations(layer, x, shortest=True)
    assert [(func, plain) for func, _, plain, _ in found] == [(func, plain) for func, _, plain, _ in expected]
    if name in LAYERS:
        assert [ids for _, ids, _, _ in found] == [ids for _, ids, _, _ in expected]
        assert len(found) == 1
    assert (z.shape, z.stride()) == (y.shape, y.stride())


def test_with_data_a_layer_runs_as_it_is() -> None:
    layer = nn.Conv2d(3, 4, 3)
    x = torch.randn(1, 3, 8, 8)
    _, y = operations(layer, x, shortest=True)
    assert torch.equal(y, layer(x))


def test_in_train_mode_a_norm_runs_as_it_is() -> None:
    layer = nn.BatchNorm2d(4).train().to("meta")
    x = torch.empty(2, 4, 9, 9, device="meta")
    expected, _ = operations(layer, x, shortest=False)
    found, _ = operations(layer, x, shortest=True)
    assert [func for func, *_ in found] == [func for func, *_ in expected]
    assert len(found) > 1
