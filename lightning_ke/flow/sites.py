"""Facts that a trace notes for the decision: groups that stay together, and shapes that code derives from channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lightning_ke.flow.labels import varying
from lightning_ke.flow.variables import PINNED, Variables


@dataclass(frozen=True, eq=False)
class Groups:
    """A grouped convolution or norm: its groups are kept whole, or all of them with the same share of channels.

    Whole groups come first. Where they would tie all groups together (a shuffle between two grouped convolutions),
    every group keeps the same share.

    Args:
        module: Canonical name of the running module.
        outer: Variables of shape (groups, channels of a group) that the site's own weight carries.
        other: Variables of shape (groups, channels) on the other side, or None if they are always kept.
        inner: Variables along the weight's inner dimension, or None if there is none to cut.
        shareable: False if only whole groups are possible.
    """

    module: str
    outer: Tensor
    other: Tensor | None
    inner: Tensor | None
    shareable: bool = True

    def keep_whole(self, variables: Variables) -> None:
        """Join all channels of each group.

        Args:
            variables: Where the joins are collected.
        """
        first = self.outer[:, :1]
        if self.outer.shape[1] > 1:
            variables.join(self.outer, first)
        if self.inner is not None:
            variables.pin(self.inner)
            if self.other is None:
                variables.pin(first)
        if self.other is not None:
            variables.join(self.other, first)

    def share(self, variables: Variables) -> None:
        """Join the channels at the same position of all groups.

        Args:
            variables: Where the joins are collected.
        """
        for side in (self.outer, self.other):
            if side is not None:
                variables.join(side, side[:1])
        if self.inner is not None:
            if self.other is None:
                variables.pin(self.inner)
            else:
                variables.join(self.inner, self.other[0])

    def tied(self, roots: Tensor) -> bool:
        """Whether keeping whole groups would leave nothing to choose.

        Args:
            roots: The roots of all variables.
        """
        several = self.outer.shape[1] > 1 or (self.other is not None and self.other.shape[1] > 1)
        return (
            self.shareable
            and several
            and len(self.outer) > 1
            and bool((roots[self.outer[:, 0]] == roots[self.outer[0, 0]]).all())
        )


class Size(NamedTuple):
    """A shape that an operation was asked for by a module's code.

    Args:
        module: Canonical name of the running module.
        shape: The dense shape.
        layers: Its layers.
        end: "in" or "out" if it is the shape of what entered or left the module, empty for any other.
    """

    module: str
    shape: tuple[int, ...]
    layers: tuple[Tensor, ...]
    end: str = ""

    def slim(self, kept: Tensor) -> tuple[int, ...] | None:
        """The shape in the slim network, or None if what is kept is not rectangular.

        Args:
            kept: Bool tensor that says of every variable whether it is kept.
        """
        shape = list(self.shape)
        members = kept.numpy()  # quicker than torch where there are many small pieces
        for layer in self.layers:
            dims = varying(layer)
            if len(dims) == 1:
                shape[dims[0]] = int(np.count_nonzero(members[layer.reshape(-1).numpy()]))
                continue
            member = kept[layer]
            if bool(member.all()):
                continue
            # The positions that any row keeps along each dimension; rows may keep others, but as many.
            rows = [int(member.movedim(dim, -1).reshape(-1, member.shape[dim]).sum(1).max()) for dim in dims]
            if math.prod(rows) != int(member.sum()):
                return None
            for dim, count in zip(dims, rows, strict=True):
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
    shared = [site for site in groups if site.tied(roots) and roots[site.outer[0, 0]] != roots[PINNED]]
    if not shared:
        return list(groups)
    variables.forget_since(mark)
    whole = [site for site in groups if all(site is not other for other in shared)]
    for site in whole:
        site.keep_whole(variables)
    for site in shared:
        site.share(variables)
    return whole
