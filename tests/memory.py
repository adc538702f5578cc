"""What memory a piece of code asks torch for, counted tensor by tensor."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Adds up the bytes of all CPU tensors that are made inside it and still alive.

    Attributes:
        peak: The most bytes that were alive at once.
        largest: Bytes of the largest tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = self.largest = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if any(kind.__name__ == "DTensor" for kind in types):
            return NotImplemented  # what it does with its local tensors comes back here
        for tensor in tree_leaves((args, kwargs or {})):
            self._see(tensor, 0)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            self._see(tensor, 1)
        return out

    def _see(self, tensor: Any, counts: int) -> None:
        if not isinstance(tensor, Tensor) or type(tensor).__name__ == "DTensor" or tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, counts * storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.alive += size
            self.peak, self.largest = max(self.peak, self.alive), max(self.largest, size)
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size
