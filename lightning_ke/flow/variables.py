"""Channel variables: which channels of a network are kept or dropped together.

A variable stands for one channel of one dimension of one tensor. Rules join variables that must share their fate; all
joins are collected first and solved at once, because a network joins some hundred thousand pairs. Most of them say of a
parameter's own variables, in order, what they lie on: such a run of variables is *defined* by others, which costs one
copy instead of a search.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: The variables of some channels: ``range(first, last + 1)`` where they were made one after another, which is nearly
#: always so and takes no memory, else an integer array.
Channels: TypeAlias = "range | NDArray[np.int32]"

#: The variable of everything that is always kept: network inputs, final outputs, what lies outside `target`.
PINNED = 0

_PINNED = range(PINNED, PINNED + 1)


def as_array(channels: Channels) -> NDArray[np.int32]:
    """The variables of some channels, one by one.

    Args:
        channels: The variables.
    """
    return np.arange(channels.start, channels.stop, dtype=np.int32) if isinstance(channels, range) else channels


def as_rows(channels: Channels, rows: int) -> NDArray[np.int32]:
    """The variables of some channels, divided into rows of equal length.

    Args:
        channels: The variables.
        rows: The number of rows.
    """
    return as_array(channels).reshape(rows, -1)


def read(values: NDArray[Any], channels: Channels) -> NDArray[Any]:
    """What is known of some channels.

    Args:
        values: What is known of each variable.
        channels: The variables.
    """
    return values[channels.start : channels.stop] if isinstance(channels, range) else values[channels]


def write(values: NDArray[Any], channels: Channels, value: Any) -> None:
    """Say what is known of some channels.

    Args:
        values: What is known of each variable; changed in place.
        channels: The variables.
        value: What is known of them.
    """
    values[slice(channels.start, channels.stop) if isinstance(channels, range) else channels] = value


#: The variables of some channels of shape (size,), so that equal ones are found to be equal: an array's are its bytes.
_Content: TypeAlias = "range | bytes"


class Variables:
    """A union-find over channel variables that solves all its joins at once.

    Example:
        >>> variables = Variables()
        >>> a, b = variables.new(2), variables.new(2)
        >>> variables.join(a, as_array(b)[::-1])
        >>> variables.pin(b[:1])
        >>> read(variables.roots(), a).tolist()
        [1, 0]
    """

    def __init__(self) -> None:
        self.count = 1
        #: Size of each run that `new` returned and that has no definition yet, by its first variable.
        self._undefined: dict[int, int] = {}
        #: Every join in turn, each once, because an LSTM joins the same channels at all of its steps: variables that
        #: share their fate pair by pair, the right ones perhaps `_PINNED`; and whether the left ones are a whole run
        #: that the right ones define.
        self._joins: dict[tuple[_Content, _Content], bool] = {}
        self._solved: NDArray[np.int32] | None = None

    def new(self, size: int) -> range:
        """Make fresh variables.

        Args:
            size: How many.
        """
        first = self.count
        self.count = last = first + size
        self._undefined[first] = size
        self._solved = None
        return range(first, last)

    def join(self, left: Channels, right: Channels) -> None:
        """Let each pair of variables share its fate.

        Args:
            left: Variables.
            right: Variables whose shape broadcasts against that of `left`.
        """
        if left is right:
            return
        if not (type(left) is type(right) is range and len(left) == len(right)):
            left, right = _paired(left, right)
        elif left == right:
            return
        self._solved = None
        if not (self._define(left, right) or self._define(right, left)):
            self._joins.setdefault((_content(left), _content(right)), False)

    def pin(self, channels: Channels) -> None:
        """Let variables be kept whatever the rate.

        Args:
            channels: Variables of any shape.
        """
        self._solved = None
        flat = _flat(channels)
        if not self._define(flat, _PINNED):
            self._joins.setdefault((_content(flat), _PINNED), False)

    def mark(self) -> int:
        """A point in time to which `forget_since` can return."""
        return len(self._joins)

    def forget_since(self, mark: int) -> None:
        """Undo every join made after `mark` was taken.

        Args:
            mark: What `mark` returned.
        """
        for join in list(self._joins)[mark:]:
            if self._joins.pop(join):
                self._undefined[join[0][0]] = len(join[0])
        self._solved = None

    def roots(self) -> NDArray[np.int32]:
        """The representative of every variable: the smallest variable it is joined with.

        Returns:
            Array of shape (number of variables,).
        """
        if self._solved is None:
            self._solved = self._solve()
        return self._solved

    def _define(self, run: Channels, channels: Channels) -> bool:
        """Let variables define a run, if it is whole and has no definition and all of them are older.

        The last keeps definitions from going round in circles.
        """
        if type(run) is not range or self._undefined.get(run.start) != len(run):
            return False
        newest = channels.stop - 1 if isinstance(channels, range) else channels.max()
        if newest >= run.start:
            return False
        del self._undefined[run.start]
        self._joins[run, _content(channels)] = True
        return True

    def _solve(self) -> NDArray[np.int32]:
        roots = np.arange(self.count, dtype=np.int32)
        # Only older variables define a run, so in this order everything is found in one pass.
        for run, content in sorted((join for join, defined in self._joins.items() if defined), key=_begin):
            roots[run[0] : run[-1] + 1] = read(roots, _channels(content))
        pairs = [
            (read(roots, _channels(one)), read(roots, _channels(other)))
            for (one, other), defined in self._joins.items()
            if not defined
        ]
        if not pairs:
            return roots
        left = np.concatenate([one for one, _ in pairs])
        right = np.concatenate([np.broadcast_to(other, one.shape) for one, other in pairs])
        del pairs
        _join_roots(roots, left, right)
        return roots[roots]


def _begin(join: tuple[_Content, _Content]) -> int:
    return join[0][0]


def _content(channels: Channels) -> _Content:
    return channels if isinstance(channels, range) else channels.astype(np.int32, copy=False).tobytes()


def _channels(content: _Content) -> Channels:
    return content if isinstance(content, range) else np.frombuffer(content, np.int32)


def _paired(left: Channels, right: Channels) -> tuple[Channels, Channels]:
    """Both sides of a join in one dimension and of one size."""
    if _shape(left) != _shape(right):
        left, right = np.broadcast_arrays(as_array(left), as_array(right))
    return _flat(left), _flat(right)


def _shape(channels: Channels) -> tuple[int, ...]:
    return (len(channels),) if isinstance(channels, range) else channels.shape


def _flat(channels: Channels) -> Channels:
    return channels if isinstance(channels, range) or channels.ndim == 1 else channels.reshape(-1)


def _join_roots(parents: NDArray[np.int32], left: NDArray[np.int32], right: NDArray[np.int32]) -> None:
    """Join pairs of roots of a forest of flat trees: afterwards each points to the smallest one that it is joined with.

    Args:
        parents: The parent of every variable; changed in place, at roots only.
        left: Roots.
        right: Roots, as many.
    """
    hooked = []
    while True:
        open_pairs = left != right
        if not open_pairs.any():
            break
        left, right = left[open_pairs], right[open_pairs]
        # Hook the larger of two roots below the smaller one, then flatten the trees; repeat until no pair is open.
        larger = np.maximum(left, right)
        np.minimum.at(parents, larger, np.minimum(left, right))
        _flatten(parents, larger)
        hooked.append(larger)
        left, right = parents[left], parents[right]
    # What was hooked first may hang below what was hooked later.
    for earlier in reversed(hooked):
        parents[earlier] = parents[parents[earlier]]


def _flatten(parents: NDArray[np.int32], nodes: NDArray[np.int32]) -> None:
    """Let some nodes of a forest point to their roots."""
    above = parents[nodes]
    while True:
        higher = parents[above]
        if (higher == above).all():
            parents[nodes] = above
            return
        above = higher
