"""How the mask of one parameter is stored: packed, and unpacked piece by piece.

One bit a weight where the split chooses weights (WELS), kept channel positions where it chooses channels (KELS),
nothing where a whole tensor is fit or reset; of a parameter that is spread over ranks only the own part's bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lightning_ke.sharding import Region, region_of
from lightning_ke.structure import Structure

# Entries that are packed at once, whole bytes of them.
_PIECE = 2**20


@dataclass(frozen=True)
class Whole:
    """A parameter that is fit (or reset) as a whole."""

    shape: tuple[int, ...]
    fit: bool

    def tensor(self) -> Tensor:
        """Bool tensor of `shape`."""
        return torch.full(self.shape, self.fit, dtype=torch.bool, device="cpu")

    def blocks(self, step: int) -> Iterator[Tensor]:
        """`tensor` in pieces of `step` rows along its first dimension (a scalar has one row)."""
        for start, stop in _row_ranges(self.shape, step):
            yield torch.full((stop - start, *self.shape[1:]), self.fit, dtype=torch.bool, device="cpu")

    def part(self, region: Region) -> Tensor:
        """What `tensor` holds in a region."""
        return torch.full([piece.stop - piece.start for piece in region], self.fit, dtype=torch.bool, device="cpu")

    def count(self) -> int:
        """Number of fit entries."""
        return math.prod(self.shape) if self.fit else 0


@dataclass(frozen=True, eq=False)
class Bits:
    """A parameter whose fit entries are chosen one by one, eight to a byte."""

    shape: tuple[int, ...]
    packed: Tensor

    @classmethod
    def pack(cls, member: Tensor) -> Bits:
        """Pack a bool tensor of any shape."""
        # In pieces, so that nothing of the tensor's size is made beside it.
        pieces = torch.split(member.detach().flatten(), _PIECE)
        return cls(tuple(member.shape), torch.cat([_pack(piece.to("cpu", torch.uint8)) for piece in pieces]))

    def tensor(self) -> Tensor:
        """Bool tensor of `shape`."""
        return _unpack(self.packed)[: math.prod(self.shape)].view(self.shape)

    def blocks(self, step: int) -> Iterator[Tensor]:
        """`tensor` in pieces of `step` rows along its first dimension (a scalar has one row)."""
        for start, stop in _row_ranges(self.shape, step):
            yield self._rows(start, stop)

    def _rows(self, start: int, stop: int) -> Tensor:
        row = math.prod(self.shape[1:])
        first, last = start * row, stop * row
        bits = _unpack(self.packed[first // 8 : -(-last // 8)])
        return bits[first % 8 :][: last - first].view(stop - start, *self.shape[1:])

    def part(self, region: Region) -> Tensor:
        """What `tensor` holds in a region."""
        if not region:
            return self.tensor()
        rows = self._rows(region[0].start, region[0].stop)
        columns = (slice(None), *region[1:])
        return rows[columns]

    def digest(self) -> str:
        """A short name of these very bits."""
        return hashlib.blake2b(self.packed.numpy().tobytes(), digest_size=16).hexdigest()

    def count(self) -> int:
        """Number of fit entries."""
        return self._ones

    @cached_property
    def _ones(self) -> int:
        ones_of_byte = _unpack(torch.arange(256, dtype=torch.uint8, device="cpu")).view(256, 8).sum(1)
        return int(torch.bincount(self.packed, minlength=256) @ ones_of_byte)


@dataclass(frozen=True, eq=False)
class Channels:
    """A parameter whose fit entries are whole channels, as its network's `Structure` says."""

    shape: tuple[int, ...]
    name: str
    structure: Structure

    def tensor(self) -> Tensor:
        """Bool tensor of `shape`."""
        return self.part(tuple(slice(0, size) for size in self.shape))

    def blocks(self, step: int) -> Iterator[Tensor]:
        """`tensor` in pieces of `step` rows along its first dimension."""
        members = self._members()
        row = _outer(members[1:])
        for start, stop in _row_ranges(self.shape, step):
            block = members[0][start:stop].unsqueeze(1) & row
            yield block.view(torch.bool).view(stop - start, *self.shape[1:])

    def part(self, region: Region) -> Tensor:
        """What `tensor` holds in a region; no more than that is ever unpacked."""
        members = [member[piece] for member, piece in zip(self._members(), region, strict=True)]
        return _outer(members).view(torch.bool).view([len(member) for member in members])

    def _members(self) -> list[Tensor]:
        """For each dimension which positions are kept."""
        # As bytes: a CPU combines those twenty times as fast as bools.
        return [
            (torch.ones(size, dtype=torch.bool, device="cpu") if axis < 0 else self.structure.axes[axis].member).view(
                torch.uint8
            )
            for size, axis in zip(self.shape, self.structure.cuts[self.name].axes, strict=True)
        ]

    def count(self) -> int:
        """Number of fit entries."""
        return self.structure.count(self.name)


@dataclass(frozen=True, eq=False)
class Shard:
    """A parameter of which each rank holds a part, and the bits of that part only.

    Args:
        shape: Shape of the whole parameter.
        region: Where this rank's part lies.
        bits: The packed mask of that part.
        ones: Number of fit entries of the whole parameter.
        digest: Name of the whole parameter's bits.
        draw: Draws the whole parameter's mask, the same at every call and on every rank.
    """

    shape: tuple[int, ...]
    region: Region
    bits: Bits
    ones: int
    digest: str
    draw: Callable[[], Tensor]

    def tensor(self) -> Tensor:
        """Bool tensor of `shape`, drawn again."""
        return self.draw()

    def blocks(self, step: int) -> Iterator[Tensor]:
        """`tensor`, drawn again, in pieces of `step` rows along its first dimension."""
        yield from torch.split(self.tensor(), step)

    def part(self, region: Region) -> Tensor:
        """What `tensor` holds in a region; nothing is drawn for this rank's own."""
        return self.bits.tensor() if region == self.region else self.tensor()[region]

    def count(self) -> int:
        """Number of fit entries of the whole parameter."""
        return self.ones


Entry = Whole | Bits | Channels | Shard


def pack_drawn(parameter: Tensor, draw: Callable[[], Tensor]) -> Bits | Shard:
    """Pack a mask that can be drawn again at any time: of a sharded parameter this rank's part only.

    Args:
        parameter: The parameter, plain or a DTensor.
        draw: Draws its mask, a bool tensor of its shape, the same at every call and on every rank.

    Example:
        >>> pack_drawn(torch.zeros(2), lambda: torch.tensor([True, False])).tensor()
        tensor([ True, False])
    """
    region = region_of(parameter)
    member = draw()
    whole = Bits.pack(member)
    if region is None:
        return whole
    return Shard(whole.shape, region, Bits.pack(member[region]), whole.count(), whole.digest(), draw)


def _outer(members: Sequence[Tensor]) -> Tensor:
    """Flat bytes that say of every position along some dimensions whether it is kept along all of them."""
    product = torch.ones(1, dtype=torch.uint8, device="cpu")
    for member in members:
        product = (product.unsqueeze(1) & member).flatten()
    return product


def _row_ranges(shape: tuple[int, ...], step: int) -> Iterator[tuple[int, int]]:
    rows = shape[0] if shape else 1
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _pack(flat: Tensor) -> Tensor:
    """Eight entries a byte, lowest bit first; the last byte is filled up with zeros."""
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (padded * 2 ** torch.arange(8, dtype=torch.uint8, device="cpu")).sum(1, dtype=torch.uint8)


def _unpack(packed: Tensor) -> Tensor:
    """Flat bool tensor of eight entries a byte, lowest bit first."""
    # The eight bools of each possible byte, seen as one int64: a table look-up is the fastest way to unpack.
    bytes_, places = (torch.arange(count, dtype=torch.uint8, device="cpu") for count in (256, 8))
    table = (bytes_.unsqueeze(1) >> places & 1).view(torch.int64).flatten()
    return table.index_select(0, packed.int()).view(torch.bool)
