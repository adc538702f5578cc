"""Running a network in double precision, whatever precision its code asks for on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.flow.mode import OperationMode
from lightning_ke.sharding import is_sharded

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


def raise_precision(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a lower precision that an operation asks for (``x.float()`` in an attention) by double precision.

    Args:
        kwargs: Keyword arguments of an operation.
    """
    return {name: _LOWER.get(value, value) if name == "dtype" else value for name, value in kwargs.items()}


class Double(OperationMode):
    """Runs every operation in double precision."""

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """See `OperationMode`."""
        return func(*args, **raise_precision(kwargs))


@contextmanager
def double_by_default() -> Iterator[None]:
    """Make double precision the default dtype for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
