"""Which channels are kept: the first of every producer, and whatever that entails."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ke.flow.attributes import slim_attributes
from lightning_ke.flow.calls import record_calls
from lightning_ke.flow.doubts import settle_doubts
from lightning_ke.flow.registry import FlowError
from lightning_ke.flow.scales import lost_factors, runs_slim
from lightning_ke.flow.sites import settle
from lightning_ke.flow.trace import Trace, trace
from lightning_ke.flow.variables import PINNED, Channels, read
from lightning_ke.structure import Axis, Cut, Structure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lightning_ke.splits.base import Call

logger = logging.getLogger(__name__)


def decide_structure(
    model: nn.Module,
    calls: Sequence[Call],
    rate: float,
    *,
    target: str | None = None,
    round_to: int = 1,
    importance: Mapping[str, Tensor] | None = None,
    traced: Trace | None = None,
) -> Structure:
    """Decide the kept channels of every tensor of a network: the first ``ceil(rate * n)`` of each producer's `n`.

    `n` counts free units: a channel, or the smallest set of channels that must stay together. Inputs and final outputs
    are kept whole, so is everything outside `target`.

    Args:
        model: The network, any mode and device; it is not changed.
        calls: How it is run; each called module is followed on its own.
        rate: Share of channels that is kept, in (0, 1).
        target: Canonical name of the submodule to which cutting is limited.
        round_to: Kept channels are rounded up to a multiple of this where the network allows it.
        importance: What each entry of a tensor counts for, by canonical name and of the tensor's shape. The units that
            carry the most are then kept instead of the first; a unit carries what all its slices of all tensors do.
        traced: What `follow` has learned of this network already; None runs it.

    Raises:
        FlowError: If channels could not be followed through an operation; the message names it.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), kernel-level convolutional-aware splitting (KELS).

    Example:
        >>> from lightning_ke.splits.base import Call
        >>> network = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Conv2d(10, 2, 1))
        >>> structure = decide_structure(network, [Call("", (torch.zeros(1, 3, 8, 8),))], rate=0.5)
        >>> structure.cuts["2.weight"], structure.axes[0].kept.tolist()
        (Cut(shape=(2, 10, 1, 1), axes=(-1, 0, -1, -1)), [0, 1, 2, 3, 4])
    """
    given, traced = traced, traced or follow(model, calls, target)
    if traced.unreached and given is None:
        warnings.warn(
            "The forward does not reach these parameters, so they stay wholly fit: "
            + ", ".join(traced.unreached)
            + ".",
            stacklevel=2,
        )
    return _structure(model, calls, traced, rate, round_to, importance)


def follow(model: nn.Module, calls: Sequence[Call], target: str | None = None) -> Trace:
    """Follow the channels of a network, also those of images made of vectors, and heads that are kept or dropped whole.

    Args:
        model: The network; it is not changed.
        calls: How it is run.
        target: Canonical name of the submodule to which cutting is limited.

    Raises:
        FlowError: If an operation has no rule or the network could not be run.
    """
    traced, ways = trace(model, calls, target), _Ways()
    if traced.stuck_images:
        traced, ways = _try(model, calls, target, traced, ways, images=traced.stuck_images)
    if traced.reducing and not _runs(model, calls, traced):
        traced, ways = _try(model, calls, target, traced, ways, whole_heads=traced.reducing)
    if traced.filling and not _runs(model, calls, traced):
        traced, ways = _try(model, calls, target, traced, ways, filled=traced.filling)
    if traced.stuck_heads:
        traced, _ = _try(model, calls, target, traced, ways, whole_heads=traced.stuck_heads | ways.whole_heads)
    return traced


class _Ways(NamedTuple):
    """Modules that are followed in another way than usual, as `trace` takes them."""

    whole_heads: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()


def _try(
    model: nn.Module,
    calls: Sequence[Call],
    target: str | None,
    traced: Trace,
    ways: _Ways,
    **more: frozenset[str],
) -> tuple[Trace, _Ways]:
    """Follow the channels of some more modules in another way, if the network's code runs when it is cut like that."""
    names = ", ".join(sorted(frozenset[str]().union(*more.values())))
    other = ways._replace(**more)
    try:
        found = trace(model, calls, target, *other)
    except FlowError as error:
        logger.info("All channels of %s stay, because an operation there cannot be followed (%s).", names, error)
        return traced, ways
    if not _runs(model, calls, found):
        logger.info("All channels of %s stay, because the network's code needs as many as there are.", names)
        return traced, ways
    return found, other


def _runs(model: nn.Module, calls: Sequence[Call], traced: Trace) -> bool:
    """Whether the network's code runs when it is cut in the way that was followed."""
    mark = traced.variables.mark()
    structure = _structure(model, calls, traced, 0.5)
    traced.variables.forget_since(mark)
    return runs_slim(model, calls, structure)


def _structure(
    model: nn.Module,
    calls: Sequence[Call],
    traced: Trace,
    rate: float,
    round_to: int = 1,
    importance: Mapping[str, Tensor] | None = None,
) -> Structure:
    whole = settle(traced.variables, traced.groups)
    roots = traced.variables.roots()
    kept = decide(traced, rate, round_to, importance)[roots]
    axes, cuts = _read_off(traced, kept)
    attributes, doubtful = slim_attributes(model, traced.sizes, whole, traced.whole_heads, traced.leaves, kept)
    structure = Structure(
        axes,
        cuts,
        record_calls(calls),
        attributes=attributes,
        unreached=traced.unreached,
        train_only=traced.train_only,
    )
    if doubtful:
        structure = settle_doubts(model, calls, structure, doubtful, [size.slim(kept) for size in traced.sizes])
    if traced.scalars:
        structure = replace(structure, scales=lost_factors(model, calls, traced, structure, kept))
    return structure


def _read_off(traced: Trace, kept: NDArray[np.bool_]) -> tuple[tuple[Axis, ...], dict[str, Cut]]:
    """How every tensor is cut, and the distinct runs of kept channels that this takes."""
    axes: list[Axis] = []
    known: dict[bytes, int] = {}
    # A norm's weight, bias and statistics, the bias before it and the next weight often share one object.
    of_object: dict[int, int] = {}

    def position_of(variables: Channels | None) -> int:
        if variables is None:
            return -1
        if (found := of_object.get(id(variables))) is not None:
            return found
        member = read(kept, variables)
        key = member.tobytes()
        if key not in known:
            whole = 0 not in key
            known[key] = -1 if whole else len(axes)
            if not whole:
                axes.append(Axis(len(member), torch.from_numpy(np.flatnonzero(member).astype(np.int32))))
        position = of_object[id(variables)] = known[key]
        return position

    cuts = {}
    for name, leaf in traced.leaves.items():
        positions = tuple(map(position_of, leaf.dims))
        if positions and max(positions) >= 0:
            cuts[name] = Cut(tuple(traced.shapes[name]), positions)
    return tuple(axes), cuts


def decide(
    traced: Trace, rate: float, round_to: int = 1, importance: Mapping[str, Tensor] | None = None
) -> NDArray[np.bool_]:
    """Decide for every root variable whether it is kept.

    Args:
        traced: What the flow learned.
        rate: Share of the free units of each producer that is kept.
        round_to: Kept channels are rounded up to a multiple of this where possible.
        importance: As for `decide_structure`.

    Returns:
        Array of shape (number of variables,), to be read at roots.
    """
    roots = traced.variables.roots()
    strength = None if importance is None else _strength(traced, roots, importance)
    pieces: list[Channels] = [piece.flat for piece in traced.pieces]
    kept = _choose(traced.producers, pieces, roots, rate, round_to, strength)
    # What layers side by side are added to may choose before them; those that it leaves without any channel are parts
    # to choose from, too.
    while emptied := [producer for producer in traced.producers if not kept[read(roots, producer)].any()]:
        pieces += emptied
        kept = _choose(traced.producers, pieces, roots, rate, round_to, strength)
    return kept


def _choose(
    producers: Sequence[Channels],
    pieces: Sequence[Channels],
    roots: NDArray[np.int32],
    rate: float,
    round_to: int,
    strength: NDArray[np.float64] | None,
) -> NDArray[np.bool_]:
    """Let every producer in turn choose among its units of which none before it has decided."""
    pinned = roots[PINNED]
    decided = np.zeros(len(roots), dtype=np.bool_)
    kept = np.ones(len(roots), dtype=np.bool_)
    part = _parts(pieces, roots)
    for producer in producers:
        units = _distinct(read(roots, producer))
        width = max(len(producer) // len(units), 1)
        free = units[(units != pinned) & ~decided[units]]
        if not free.size:
            continue
        decided[free] = True
        # What the network slices apart again is chosen from part by part: the first of each, not all of the first.
        own = part[free]
        for mark in _distinct(own):
            units = free[own == mark]
            if strength is not None:
                units = units[np.argsort(-strength[units], kind="stable")]
            keep = min(_rounded(math.ceil(rate * len(units)), width, round_to), len(units))
            kept[units[keep:]] = False
    return kept


def _strength(traced: Trace, roots: NDArray[np.int32], importance: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """What every root carries: the sum over all slices, of all tensors, that belong to it."""
    strength = np.zeros(len(roots))
    for name, leaf in traced.leaves.items():
        for position, variables in enumerate(leaf.dims):
            if name in importance and variables is not None:
                slices = importance[name].movedim(position, 0).reshape(len(variables), -1).sum(1, dtype=torch.float64)
                np.add.at(strength, read(roots, variables), slices.detach().cpu().numpy())
    return strength


def _parts(pieces: Sequence[Channels], roots: NDArray[np.int32]) -> NDArray[np.int64]:
    """A number for every root that says in which slices its channels lie."""
    part = np.zeros(len(roots), dtype=np.int64)
    # Every slice adds its own random number to what lies in it: equal sums are equal sets of slices.
    marks = torch.randint(2**62, (len(pieces),), generator=torch.Generator().manual_seed(0)).numpy()
    for piece, mark in zip(pieces, marks, strict=True):
        part[read(roots, piece)] += mark
    return part


def _distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The distinct values in the order of their first appearance."""
    if bool((values[1:] > values[:-1]).all()):
        return values
    if bool((values == values[0]).all()):
        return values[:1]
    first = np.unique(values, return_index=True)[1]
    return values[np.sort(first)]


def _rounded(units: int, width: int, round_to: int) -> int:
    """The least number of units, at least `units`, whose channels are a multiple of `round_to`."""
    step = round_to // math.gcd(width, round_to)
    return math.ceil(units / step) * step
