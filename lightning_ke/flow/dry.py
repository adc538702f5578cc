"""Running a network without data: on tensors that have a shape and a dtype, but no values.

torch's meta tensors cost a tenth of its fake tensors here; the operations whose shape functions are slow are answered
directly (`shapes`).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.flow.shapes import META, SHAPES, ShapeFunction

aten = torch.ops.aten


def tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among an operation's arguments or results, lists of tensors included.

    Args:
        values: Arguments or results.
    """
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)) and value and type(value[0]) not in (int, float, bool):
            found += tensors(value)
    return found


def run(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an operation; on meta tensors by the shortest way to its output shape.

    Args:
        func: The operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    return run_known(func, args, kwargs, tensors((args, tuple(kwargs.values()))), SHAPES.get(func))


def run_known(
    func: torch._ops.OpOverload,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    entering: Sequence[Tensor],
    shape: ShapeFunction | None,
) -> Any:
    """Run an operation as `run` does, for whoever has looked up already what it takes.

    Args:
        func: The operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        entering: The tensors among its arguments.
        shape: Its shape function, if it has one.
    """
    dry = [tensor.is_meta for tensor in entering]
    if True in dry:
        if False in dry:
            args, kwargs = _to_meta(args, kwargs)
        result = None if shape is None else shape(args, kwargs)
        if result is not None:
            return result
        if "device" in kwargs and func is aten._to_copy.default:
            kwargs = {**kwargs, "device": None}
    return func(*args, **kwargs)


def _to_meta(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value if value.device.type == "meta" else value.to("meta")
        if isinstance(value, (list, tuple)):
            return type(value)(convert(item) for item in value)
        return value

    return [convert(value) for value in args], {name: convert(value) for name, value in kwargs.items()}


@contextmanager
def quiet_world() -> Iterator[None]:
    """Leave random number generators and grad mode as they were, and take no shortcuts through attention or LSTMs."""
    python_state = random.getstate()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # It has one operator for a whole LSTM. Not by its context manager `flags`, which warns of TF32 where there is none.
    one_operator = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # torch's descriptor is untyped
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        torch.backends.mkldnn.enabled = one_operator
        random.setstate(python_state)


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Let code that names no device make its tensors beside our copies, whatever the default device is."""
    if torch.empty(0).is_cpu:  # `get_default_device` overlooks `with torch.device(...)` in torch 2.7
        yield  # the other way costs a little in every call of torch
        return
    with torch.device("cpu"):
        yield


def without_data(tensor: Tensor) -> Tensor:
    """A copy of a tensor without values; integers (index tables, counters) may steer the forward and keep theirs.

    Args:
        tensor: A parameter, buffer or input.
    """
    kind = type(tensor)
    if not tensor.is_floating_point() and not tensor.is_meta:
        return tensor.clone() if tensor.is_cpu else tensor.cpu()
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
    if kind is nn.Parameter:
        return torch.Tensor._make_subclass(nn.Parameter, empty, tensor.requires_grad)  # several times as fast
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def with_data(tensor: Tensor) -> Tensor:
    """A copy of a tensor with its values, because code may write to them even in eval mode (weights that are clipped).

    Args:
        tensor: A parameter, buffer or input.
    """
    copied = tensor.detach().clone()
    return nn.Parameter(copied, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied


def copy_inputs(value: Any, convert: Callable[[Tensor], Tensor] = without_data) -> Any:
    """A copy of whatever a network is called with, its tensors converted.

    Args:
        value: Arguments of a forward.
        convert: Makes the copy of one tensor.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors_in(value):
        memo[id(tensor)] = convert(tensor)
    return copy.deepcopy(value, memo)


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """Find the tensors in whatever a forward takes or returns: containers, dataclasses, objects.

    Args:
        value: A tensor or anything that may hold tensors.
        depth: How many objects enclose it.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item, depth)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from tensors_in(item, depth)
    elif hasattr(value, "__dict__") and not callable(value) and depth < 4:
        for item in vars(value).values():
            yield from tensors_in(item, depth + 1)
