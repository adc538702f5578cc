"""Facts that a trace notes for the decision: groups that stay together, and shapes that code derives from channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_ke.flow.labels import Layer
from lightning_ke.flow.variables import Channels, Variables, as_rows, read


@dataclass(frozen=True, eq=False)
class Groups:
    """A grouped convolution or norm: its groups are kept whole, or all of them with the same share of channels.

    Whole groups come first. Where they would tie all groups together (a shuffle between two grouped convolutions),
    every group keeps the same share.

    Args:
        module: Canonical name of the running module.
        count: The number of groups.
        outer: Variables that the site's own weight carries, group after group.
        other: Variables on the other side, group after group, or None if they are always kept.
        inner: Variables along the weight's inner dimension, or None if there is none to cut.
    """

    module: str
    count: int
    outer: Channels
    other: Channels | None
    inner: Channels | None

    @property
    def first(self) -> Channels:
        """The first channel of each group."""
        return self.outer if len(self.outer) == self.count else as_rows(self.outer, self.count)[:, 0]

    def keep_whole(self, variables: Variables) -> None:
        """Join all channels of each group.

        Args:
            variables: Where the joins are collected.
        """
        first = self.first
        if len(self.outer) > self.count:
            variables.join(self.outer, np.repeat(first, len(self.outer) // self.count))
        if self.inner is not None:
            variables.pin(self.inner)
            if self.other is None:
                variables.pin(first)
        if self.other is not None:
            width = len(self.other) // self.count
            variables.join(self.other, first if width == 1 else np.repeat(first, width))

    def share(self, variables: Variables) -> None:
        """Join the channels at the same position of all groups.

        Args:
            variables: Where the joins are collected.
        """
        for side in (self.outer, self.other):
            if side is not None:
                rows = as_rows(side, self.count)
                variables.join(rows, rows[:1])
        if self.inner is not None:
            if self.other is None:
                variables.pin(self.inner)
            else:
                variables.join(self.inner, self.other[: len(self.other) // self.count])

    def tied(self, roots: NDArray[np.int32]) -> bool:
        """Whether keeping whole groups would leave nothing to choose.

        Args:
            roots: The roots of all variables.
        """
        several = len(self.outer) > self.count or (self.other is not None and len(self.other) > self.count)
        if not (several and self.count > 1):
            return False
        own = read(roots, self.first)
        return bool((own == own[0]).all())


class Size(NamedTuple):
    """A shape that an operation was asked for by a module's code.

    Args:
        module: Canonical name of the running module.
        shape: The dense shape.
        layers: Its layers.
        end: "in" or "out" if it is the shape of what entered or left the module, "part" if a part of it returned that,
            empty for any other.
    """

    module: str
    shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    end: str = ""

    def slim(self, kept: NDArray[np.bool_]) -> tuple[int, ...] | None:
        """The shape in the slim network, or None if what is kept is not rectangular.

        Args:
            kept: Says of every variable whether it is kept.
        """
        shape = list(self.shape)
        for layer in self.layers:
            member = read(kept, layer.entries)
            if len(layer.dims) == 1:
                shape[layer.dims[0]] = int(np.count_nonzero(member))
                continue
            if bool(member.all()):
                continue
            # The positions that any row keeps along each dimension; rows may keep others, but as many.
            rows = [int(member.sum(dim).max()) for dim in layer.dims]
            if math.prod(rows) != int(member.sum()):
                return None
            for dim, count in zip(layer.dims, rows, strict=True):
                shape[dim] = count
        return tuple(shape)


def settle(variables: Variables, groups: Sequence[Groups]) -> list[Groups]:
    """Join what every grouped operation keeps together.

    Args:
        variables: Where the joins are collected.
        groups: The grouped operations.

    Returns:
        Those whose groups are kept whole.
    """
    if not groups:
        return []
    mark = variables.mark()
    for site in groups:
        site.keep_whole(variables)
    roots = variables.roots()
    shared = [site for site in groups if site.tied(roots)]
    if not shared:
        return list(groups)
    variables.forget_since(mark)
    whole = [site for site in groups if all(site is not other for other in shared)]
    for site in whole:
        site.keep_whole(variables)
    for site in shared:
        site.share(variables)
    return whole
