"""Running a network in double precision, whatever precision its code asks for on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.flow.mode import OperationMode
from lightning_ke.sharding import is_sharded

aten = torch.ops.aten

#: Operations that fill a tensor with random numbers, whatever it held.
_RANDOM = frozenset(
    {
        aten.rand,
        aten.randn,
        aten.rand_like,
        aten.randn_like,
        aten.normal_,
        aten.uniform_,
        aten.bernoulli_,
        aten.exponential_,
        aten.geometric_,
        aten.log_normal_,
        aten.cauchy_,
    }
)

_LOWER = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}


def in_double(tensor: Tensor) -> Tensor:
    """A copy of a tensor for the proof: on the CPU, floating-point values in double precision.

    Args:
        tensor: A parameter, buffer or input.
    """
    dtype = torch.float64 if tensor.is_floating_point() else tensor.dtype
    # The proof gives every parameter values of its own; those of a sharded one need not be gathered.
    copied = (
        torch.zeros(tensor.shape, dtype=dtype) if is_sharded(tensor) else tensor.detach().to("cpu", dtype, copy=True)
    )
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def run_in_double(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation in double precision whatever its code asks for (``x.float()``), and without chance.

    Two networks that draw random numbers for different numbers of channels could not be compared: one number takes
    their place, and dropout drops nothing.

    Args:
        func: The operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    if func is aten.native_dropout.default:
        return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
    if func is aten.fake_quantize_per_channel_affine_cachemask.default:
        args = [args[0], args[1].float(), *args[2:]]  # it takes its scales in no other precision
    raised = {name: _LOWER.get(value, value) if name == "dtype" else value for name, value in kwargs.items()}
    result = func(*args, **raised)
    if func.overloadpacket in _RANDOM and result.is_floating_point():
        result.fill_(0.5)
    return result


class Double(OperationMode):
    """Runs every operation in double precision."""

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """See `OperationMode`."""
        return run_in_double(func, args, kwargs)


@contextmanager
def double_by_default() -> Iterator[None]:
    """Make double precision the default dtype for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
