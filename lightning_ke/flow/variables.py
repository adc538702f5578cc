"""Channel variables: which channels of a network are kept or dropped together.

A variable stands for one channel of one dimension of one tensor. Rules join variables that must share their fate; all
joins are collected first and solved at once, because a network joins some hundred thousand pairs. Most of them say of a
parameter's own variables, in order, what they lie on: such a run of variables is *defined* by others, which costs one
copy instead of a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

import torch
from torch import Tensor

# Joins that are solved at once: few enough to stay in a processor's cache, where they are solved several times faster
# than all together and need little memory.
_BATCH = 2**15

#: The variable of everything that is always kept: network inputs, final outputs, what lies outside `target`.
PINNED = 0


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
        #: The runs that `new` returned, by their memory, with their first variable; views of a whole run are found too.
        self._runs: dict[int, tuple[int, Tensor]] = {}
        #: Every join in turn; the first variable of the left run if that is defined by the right side, else None.
        self._joins: list[tuple[Tensor, Tensor, int | None]] = []
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
        runs = torch.arange(self.count, self.count + sum(sizes)).split_with_sizes(list(sizes))
        for size, run in zip(sizes, runs, strict=True):
            self._runs[run.data_ptr()] = self.count, run
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
            shape = left.shape if right.dim() == 0 else (left + right).shape
            left, right = left.expand(shape), right.expand(shape)
        one, other = self._first(left), self._first(right)
        if one is not None and one == other:
            return
        self._solved = None
        if self._defines(right, other, one):
            self._joins.append((left.reshape(-1), right.reshape(-1), one))
        elif self._defines(left, one, other):
            self._joins.append((right.reshape(-1), left.reshape(-1), other))
        else:
            self._joins.append((left.reshape(-1), right.reshape(-1), None))
            return
        self._defined.add(self._joins[-1][2] or 0)

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
        self._defined.difference_update(run for _, _, run in self._joins[mark:] if run is not None)
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
        first, run = self._runs.get(variables.data_ptr(), (0, None))
        whole = run is not None and variables.numel() == run.numel() and variables.is_contiguous()
        return first if whole else None

    def _defines(self, variables: Tensor, own: int | None, run: int | None) -> bool:
        """Whether variables can define a run: it has no other definition, and only older ones may define it.

        The latter keeps definitions from going round in circles.
        """
        if run is None or run in self._defined:
            return False
        return (int(variables.max()) if own is None else own) < run

    def _solve(self) -> Tensor:
        root = torch.arange(self.count)
        values = root.numpy()  # the same memory; numpy is quicker where there are many small pieces
        # Only older variables define a run, so in this order everything is found in one pass.
        for first, by in sorted(((first, by) for _, by, first in self._joins if first is not None), key=itemgetter(0)):
            values[first : first + by.numel()] = values[by.numpy()]
        pairs = [(left, right) for left, right, first in self._joins if first is None]
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
