"""Fresh values reach a parameter piece by piece: neither they nor its mask ever take its size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_ke.flow.mode import OperationMode
from lightning_ke.packing import Entry
from lightning_ke.sharding import own_part, region_of
from lightning_ke.units import StandIn, Unit, own_reset

# Entries that are written at once: large enough for full speed, small enough for the processor's cache.
_CHUNK = 2**16
# Integers of a float's size, to choose between two floats bit by bit: five times as fast as `torch.where` on a CPU.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def rows_at_once(shape: tuple[int, ...]) -> int:
    """How many rows of a tensor make a piece.

    Args:
        shape: Shape of the tensor.

    Example:
        >>> rows_at_once((1000, 2**10)), rows_at_once((2, 2**20)), rows_at_once(())
        (64, 1, 65536)
    """
    return max(1, _CHUNK // max(1, math.prod(shape[1:])))


def in_pieces(values: Tensor) -> Iterator[Tensor]:
    """A tensor in the pieces that `write` takes.

    Args:
        values: Any tensor.
    """
    yield from torch.split(values if values.ndim else values.view(1), rows_at_once(tuple(values.shape)))


@dataclass(frozen=True)
class UniformFill:
    """One parameter of a module, and the range in which its reset draws it.

    Args:
        local: Dotted name of the parameter within the module.
        shape: Its shape.
        low: Lower end of the range.
        high: Upper end of the range.
    """

    local: str
    shape: tuple[int, ...]
    low: float
    high: float

    def pieces(self) -> Iterator[Tensor]:
        """Draw from the global CPU stream: the numbers of one `uniform_` on the whole tensor, in float32."""
        rows, step = (self.shape[0] if self.shape else 1), rows_at_once(self.shape)
        for start in range(0, rows, step):
            piece = torch.empty((min(step, rows - start), *self.shape[1:]), dtype=torch.float32, device="cpu")
            yield piece.uniform_(self.low, self.high)


def uniform_fills(unit: Unit) -> list[UniformFill] | None:
    """How torch's own reset of a layer draws, in this order, if all it does is to fill parameters uniformly.

    That reset runs on tensors without data and is watched. A reset that somebody else wrote is not run for this: it may
    do more than draw, or need the numbers.

    Args:
        unit: A module that holds parameters.

    Returns:
        What it fills, or None if the module has to draw into a whole copy of itself.

    Example:
        >>> from torch import nn
        >>> def of(layer):
        ...     return uniform_fills(Unit("fc", layer, dict(layer.named_parameters())))
        >>> [(fill.local, fill.shape, round(fill.high, 3)) for fill in of(nn.Linear(4, 1))]
        [('weight', (1, 4), 0.5), ('bias', (1,), 0.5)]
        >>> of(nn.Embedding(4, 1)) is None
        True
    """
    if not str(getattr(own_reset(unit.module), "__module__", "")).startswith("torch.nn."):
        return None
    stand_in = StandIn.of(unit, device="meta")
    watch = _Watch({id(stand_in.module.get_parameter(local)): local for local in stand_in.locals})
    reset = own_reset(stand_in.module)
    assert reset is not None, "the stand-in is of the module's class"
    try:
        with watch:
            reset()
    except Exception:  # a subclass in which torch's reset fails: drawing into a copy says so
        return None
    return watch.fills


class _Watch(OperationMode):
    """Writes down uniform fills of whole parameters; anything else that writes or draws makes `fills` None."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.fills: list[UniformFill] | None = []
        self._names = names

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operation and write down what it fills.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
        """
        if func is torch.ops.aten.uniform_.default and id(args[0]) in self._names and not kwargs:
            low, high = (float(args[1]) if len(args) > 1 else 0.0), (float(args[2]) if len(args) > 2 else 1.0)
            if self.fills is not None:
                self.fills.append(UniformFill(self._names[id(args[0])], tuple(args[0].shape), low, high))
        elif func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags:
            self.fills = None
        return func(*args, **kwargs)


def write(tensor: Tensor, entry: Entry, pieces: Iterator[Tensor]) -> None:
    """Put fresh values in the places of a parameter that its mask does not keep; no other bit changes.

    Args:
        tensor: The parameter or buffer; of a DTensor this rank's part is written.
        entry: Its mask.
        pieces: Values for the whole of it in `rows_at_once` rows each, on the CPU.
    """
    region = region_of(tensor)
    if region is not None:
        part = own_part(tensor)
        _blend(part, _cut_out(pieces, region, tuple(part.shape)), entry.part(region))
        return
    olds = in_pieces(tensor)
    if entry.count() == 0:
        for old, new in zip(olds, pieces, strict=True):
            old.copy_(new)
        return
    for old, new, kept in zip(olds, pieces, entry.blocks(rows_at_once(entry.shape)), strict=True):
        _blend(old, new, kept)


def _cut_out(pieces: Iterator[Tensor], region: tuple[slice, ...], shape: tuple[int, ...]) -> Tensor:
    """A region of a tensor that comes in pieces; all pieces are asked for, because each may draw."""
    part = torch.empty(shape, dtype=torch.float32, device="cpu")
    rows, columns, at = region[0], (slice(None), *region[1:]), 0
    for piece in pieces:
        first, last = max(rows.start, at), min(rows.stop, at + len(piece))
        if first < last:
            part[first - rows.start : last - rows.start] = piece[first - at : last - at][columns]
        at += len(piece)
    return part


def _blend(old: Tensor, new: Tensor, kept: Tensor) -> None:
    """Copy the entries that are not kept, bit by bit."""
    integers = _INTEGERS[old.element_size()]
    redrawn = kept.to(old.device).to(integers).neg_().bitwise_not_()  # all bits set where redrawn, else none
    bits = old.view(integers)
    bits ^= redrawn.bitwise_and_(new.to(old).view(integers) ^ bits)
