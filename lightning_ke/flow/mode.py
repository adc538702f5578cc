"""A dispatch mode that a type checker understands: it sees every operation of a forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def transforming() -> bool:
    """Return whether code runs inside of `torch.func` (`vmap`, `grad`), whose tensors mean nothing outside of it."""
    return torch._C._are_functorch_transforms_active()


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves this class untyped
    """Hands every operation that runs inside it to `operate`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]  # as above

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.operate(func, args, dict(kwargs or {}))

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation and return its result.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
        """
        return func(*args, **kwargs)
