"""Channel variables: which channels of a network are kept or dropped together.

A variable stands for one channel of one dimension of one tensor. Rules join variables that must share their fate; all
joins are collected first and solved at once, because a network joins some hundred thousand pairs. Most of them say of a
parameter's own variables, in order, what they lie on: such a run of variables is *defined* by others, which costs one
copy instead of a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor

# Joins that are solved at once: few enough to stay in a processor's cache, where they are solved several times faster
# than all together and need little memory.
_BATCH = 2**15

#: The variable of everything that is always kept: network inputs, final outputs, what lies outside `target`.
PINNED = 0


class _Join(NamedTuple):
    """Pairs of variables that share their fate.

    Args:
        left: int64 tensor of shape (size,).
        right: int64 tensor of shape (size,).
        run: The first variable of the left side if that is a run which the right side defines, else None.
        by: The first variable of the right side if that is a whole run, too.
    """

    left: Tensor
    right: Tensor
    run: int | None
    by: int | None


class Variables:
    """A union-find over channel variables that solves all its joins at once.

    Example:
        >>> variables = Variables()
        >>> a, b = variables.new(2), variables.new(2)
        >>> variables.join(a, b.flip(0))
        >>> variables.pin(b[:1])
        >>> variables.roots()[a].tolist()
        [1, 0]
    """

    def __init__(self) -> None:
        self.count = 1
        self._pinned = torch.tensor(PINNED)
        #: First variable and size of each run that `new` returned, by its memory; views of a whole run are found too.
        self._runs: dict[int, tuple[int, int]] = {}
        self._memory: list[Tensor] = []
        #: Every join in turn.
        self._joins: list[_Join] = []
        self._defined: set[int] = set()
        self._solved: Tensor | None = None

    def new(self, size: int) -> Tensor:
        """Make fresh variables.

        Args:
            size: How many.

        Returns:
            int64 tensor of shape (size,).
        """
        return self.new_runs([size])[0]

    def new_runs(self, sizes: Sequence[int]) -> Sequence[Tensor]:
        """Make several runs of fresh variables at once.

        Args:
            sizes: How many variables each run has.

        Returns:
            An int64 tensor of shape (size,) for each.
        """
        whole = torch.arange(self.count, self.count + sum(sizes))
        self._memory.append(whole)
        runs = whole.split_with_sizes(list(sizes))
        start = whole.data_ptr()
        for size in sizes:
            self._runs[start] = self.count, size
            start += size * whole.itemsize
            self.count += size
        self._solved = None
        return runs

    def join(self, left: Tensor, right: Tensor) -> None:
        """Let each pair of variables share its fate.

        Args:
            left: int64 tensor.
            right: int64 tensor that broadcasts against `left`.
        """
        if left is right:
            return
        if left.shape != right.shape:
            left, right = torch.broadcast_tensors(left, right)  # type: ignore[no-untyped-call]  # torch leaves it so
        if left.dim() != 1:
            left, right = left.reshape(-1), right.reshape(-1)
        one, other = self._first(left), self._first(right)
        if one is not None and one == other:
            return
        self._solved = None
        if one is not None and self._defines(right, other, one):
            self._defined.add(one)
            self._joins.append(_Join(left, right, one, other))
        elif other is not None and self._defines(left, one, other):
            self._defined.add(other)
            self._joins.append(_Join(right, left, other, one))
        else:
            self._joins.append(_Join(left, right, None, None))

    def pin(self, variables: Tensor) -> None:
        """Let variables be kept whatever the rate.

        Args:
            variables: int64 tensor of any shape.
        """
        self.join(variables, self._pinned)

    def mark(self) -> int:
        """A point in time to which `forget_since` can return."""
        return len(self._joins)

    def forget_since(self, mark: int) -> None:
        """Undo every join made after `mark` was taken.

        Args:
            mark: What `mark` returned.
        """
        self._defined.difference_update(join.run for join in self._joins[mark:] if join.run is not None)
        del self._joins[mark:]
        self._solved = None

    def roots(self) -> Tensor:
        """The representative of every variable: the smallest variable it is joined with.

        Returns:
            int64 tensor of shape (number of variables,).
        """
        if self._solved is None:
            self._solved = self._solve()
        return self._solved

    def _first(self, variables: Tensor) -> int | None:
        """The first variable of a whole run in its order, None for anything else."""
        run = self._runs.get(variables.data_ptr())
        return run[0] if run is not None and variables.numel() == run[1] and variables.is_contiguous() else None

    def _defines(self, variables: Tensor, own: int | None, run: int) -> bool:
        """Whether variables can define a run: it has no other definition, and only older ones may define it.

        The latter keeps definitions from going round in circles.
        """
        return run not in self._defined and (int(variables.max()) if own is None else own) < run

    def _solve(self) -> Tensor:
        root = torch.arange(self.count)
        values = root.numpy()  # the same memory; numpy is quicker where there are many small pieces
        # Only older variables define a run, so in this order everything is found in one pass.
        defined = [(run, by, right) for _, right, run, by in self._joins if run is not None]
        for run, by, right in sorted(defined, key=itemgetter(0)):
            size = right.numel()
            values[run : run + size] = values[right.numpy()] if by is None else values[by : by + size]
        pairs = [(left, right) for left, right, first, _ in self._joins if first is None]
        for left, right in _batches(pairs):
            root = _joined(root, left, right)
        return root


def _joined(root: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Join pairs of variables in a forest of flat trees; the result is flat, too."""
    while True:
        # Hook the larger of two roots below the smaller one, then flatten the trees; repeat until no edge is left.
        left, right = root[left], root[right]
        open_edges = left != right
        if not open_edges.any():
            return root
        left, right = left[open_edges], right[open_edges]
        root = _flat(root.scatter_reduce(0, torch.maximum(left, right), torch.minimum(left, right), "amin"))


def _flat(root: Tensor) -> Tensor:
    """Let every variable of a forest point to its root."""
    while True:
        flat = root[root]
        if torch.equal(flat, root):
            return root
        root = flat


def _batches(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Concatenate pairs of pieces to batches of at least `_BATCH` entries."""
    batch: list[tuple[Tensor, Tensor]] = []
    size = 0
    for pair in pairs:
        batch.append(pair)
        size += pair[0].numel()
        if size >= _BATCH or pair is pairs[-1]:
            yield torch.cat([left for left, _ in batch]), torch.cat([right for _, right in batch])
            batch, size = [], 0
