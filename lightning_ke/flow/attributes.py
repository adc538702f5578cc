"""Numbers that modules remember: which of their attributes say another size in the slim network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lightning_ke import naming
from lightning_ke.flow.leaves import Leaf
from lightning_ke.flow.sites import Groups, Size
from lightning_ke.flow.variables import Channels, read

#: Parts of names that speak of channels; of channels rather than of counts (heads, groups, blocks), if of either.
_CERTAIN_WORDS = re.compile("dim|chan|feat|width|hidden|planes|(?<!epo)chs|inp|(?<!gr)oup")
_CHANNEL_WORDS = re.compile(f"{_CERTAIN_WORDS.pattern}|size")

#: Parts of names that speak of neither: of the input's extent, of places in it, of an operation's options.
_OTHER_WORDS = re.compile(
    "image|img|input_size|patch|grid|resolution|height|seq|token|length|stride|kernel|scale|factor|pad|dilation|depth"
    "|level|window|ratio|training|pieces|pool(_size)?$"
)

#: Names of attributes that say how many channels enter and leave a module.
_ENDS = {"in": ("in_channels", "in_features", "num_features"), "out": ("out_channels", "out_features")}
_AT_ENDS = frozenset(name for names in _ENDS.values() for name in names)


class Guess(NamedTuple):
    """What a number may say in the slim network, if it is a width at all: a batch size or a count may equal one.

    Args:
        value: What it would say.
        likely: Whether nothing that its module's code asked for has that number and keeps it.
        enters: Whether no operation was asked for it: it is only as large as what enters the module, which code may
            check.
    """

    value: Any
    likely: bool
    enters: bool = False


def tells_its_sizes(module: nn.Module) -> bool:
    """Whether a module that is not one of torch's own layers says how many channels enter or leave it.

    Args:
        module: A module of a network.
    """
    held = vars(module)
    if "normalized_shape" in held:
        return True
    if type(module).__module__.startswith("torch.nn"):
        return False
    return any(name in _AT_ENDS or (type(held[name]) is int and _CERTAIN_WORDS.search(name)) for name in held)


def slim_attributes(
    model: nn.Module,
    sizes: Sequence[Size],
    whole: Sequence[Groups],
    heads: Sequence[tuple[str, Channels]],
    leaves: Mapping[str, Leaf],
    kept: NDArray[np.bool_],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Guess]]]:
    """Find the attributes that code turned into shapes, and their values in the slim network.

    Args:
        model: The dense network.
        sizes: The shapes with channels that modules' code asked for.
        whole: The grouped operations whose groups are kept whole.
        heads: The heads of attentions that keep or drop whole ones: module, a variable of each head.
        leaves: Every parameter and buffer by canonical name.
        kept: Says of every variable whether it is kept.

    Returns:
        Module name, then attribute name, then the slim value; and in the same way what may be (see `doubts`).
    """
    changes = _changes(sizes, kept)
    if not (changes or whole or heads):
        return {}, {}
    modules = dict(naming.named_modules(model))
    found: dict[str, dict[str, Any]] = {}
    doubtful: dict[str, dict[str, Guess]] = {}
    for (name, end), seen in changes.items():
        if own := _at_end(modules[name], end, seen) if end in _ENDS else {}:
            found.setdefault(name, {}).update(own)
        if end == "out":
            continue
        for attribute, guess in _changed(modules[name], seen).items():
            if guess.likely and not end and _CERTAIN_WORDS.search(attribute):
                found.setdefault(name, {})[attribute] = guess.value
            elif end != "in":
                doubtful.setdefault(name, {})[attribute] = guess
            elif _CERTAIN_WORDS.search(attribute):
                doubtful.setdefault(name, {}).setdefault(attribute, Guess(guess.value, likely=False, enters=True))
    for name, attribute, after in _counts(modules, whole, heads, leaves, kept):
        found.setdefault(name, {})[attribute] = after
    return found, {
        name: {attribute: guess for attribute, guess in own.items() if attribute not in found.get(name, {})}
        for name, own in doubtful.items()
    }


def _counts(
    modules: Mapping[str, nn.Module],
    whole: Sequence[Groups],
    heads: Sequence[tuple[str, Channels]],
    leaves: Mapping[str, Leaf],
    kept: NDArray[np.bool_],
) -> Iterator[tuple[str, str, int]]:
    """The numbers of groups and of heads of which whole ones are dropped: module name, attribute name, slim value."""
    for site in whole:
        before, after = site.count, int(read(kept, site.first).sum())
        for name, attribute in itertools.product((site.module, *_holders(site, leaves)), ("groups", "num_groups")):
            if before != after and getattr(modules[name], attribute, None) == before:
                yield name, attribute, after
    for name, variables in heads:
        before, after = len(variables), int(read(kept, variables).sum())
        for attribute, value in vars(modules[name]).items():
            if before != after and "heads" in attribute and value == before:
                yield name, attribute, after


def _holders(site: Groups, leaves: Mapping[str, Leaf]) -> list[str]:
    """The modules that hold a grouped operation's weight: code may hand it to the operation, with their `groups`."""
    outer = site.outer
    if not isinstance(outer, range):  # a weight that was put together of several
        return []
    firsts = ((name, leaf.dims[0]) for name, leaf in leaves.items() if leaf.dims)
    return [name.rpartition(".")[0] for name, first in firsts if isinstance(first, range) and first == outer]


def _changes(sizes: Sequence[Size], kept: NDArray[np.bool_]) -> dict[tuple[str, str], dict[int, set[int]]]:
    """For each module, and each of its ends, what becomes of the sizes that carry channels."""
    changes: dict[tuple[str, str], dict[int, set[int]]] = {}
    for size in sizes:
        slim = size.slim(kept)
        if slim is None:
            continue
        seen = changes.setdefault((size.module, size.end), {})
        for layer in size.layers:
            for dim in layer.dims:
                seen.setdefault(size.shape[dim], set()).add(slim[dim])
    return changes


def _at_end(module: nn.Module, end: str, seen: Mapping[int, set[int]]) -> dict[str, Any]:
    """The attributes that say how many channels enter or leave a module."""
    changed: dict[str, Any] = {}
    for attribute in _ENDS[end]:
        value = vars(module).get(attribute)
        if isinstance(value, int) and _after(attribute, value, seen) != value:
            changed[attribute] = _after(attribute, value, seen)
    shape = vars(module).get("normalized_shape") if end == "in" else None
    if isinstance(shape, tuple):
        after = [_after("normalized_shape", item, seen) for item in shape]
        if after != list(shape):
            changed["normalized_shape"] = after
    return changed


def _changed(module: nn.Module, seen: Mapping[int, set[int]]) -> dict[str, Guess]:
    """The attributes of one module that are a size which changes, or may be."""
    changed: dict[str, Guess] = {}
    if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Unflatten):
        return changed  # torch's own layers are told their sizes when they are cut
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or _OTHER_WORDS.search(attribute):
            continue
        items = value if type(value) in (tuple, list) else [value]
        if not items or any(type(item) is not int for item in items):
            continue
        others = [seen.get(item, {item}) - {item} for item in items]
        after = [other.pop() if len(other) == 1 else item for other, item in zip(others, items, strict=True)]
        if after != list(items):
            likely = [_after(attribute, item, seen) for item in items] == after
            changed[attribute] = Guess(after if value is items else after[0], likely)
    return changed


def _after(attribute: str, value: int, seen: Mapping[int, set[int]]) -> int:
    sizes = seen.get(value, {value})
    others = sizes - {value}
    if len(others) != 1:
        return value
    if value in sizes and not _CHANNEL_WORDS.search(attribute):
        return value
    return others.pop()
