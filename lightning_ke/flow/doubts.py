"""Numbers that may be a width, tried out: the slim network's code has to run as the dense network's does."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_ke import naming
from lightning_ke.flow.attributes import Guess
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import copy_inputs, quiet_world, run, tensors, with_data, without_data
from lightning_ke.flow.mode import OperationMode
from lightning_ke.flow.running import train_whole
from lightning_ke.flow.views import is_view
from lightning_ke.structure import Structure

if TYPE_CHECKING:
    from lightning_ke.splits.base import Call

#: A number: the module's name and the attribute's.
Place = tuple[str, str]

#: How many choices are tried at most.
_TRIALS = 8


def settle_doubts(
    model: nn.Module,
    calls: Sequence[Call],
    structure: Structure,
    doubtful: Mapping[str, Mapping[str, Guess]],
    shapes: Collection[tuple[int, ...] | None],
) -> Structure:
    """Decide which numbers say another size in the slim network: of those that the forward reads, those it needs.

    Args:
        model: The dense network.
        calls: How it is run.
        structure: What is kept, and the numbers that are certain.
        doubtful: Module name, then attribute name, then what it may say.
        shapes: Shapes that tensors of the slim network should have.

    Returns:
        The structure with the numbers that were chosen.
    """
    guesses = {(name, attribute): guess for name, own in doubtful.items() for attribute, guess in own.items()}
    if not guesses:
        return structure
    read: set[Place] = set()
    train = bool(structure.train_only)
    dense = _run(model, calls, train, guesses, read)
    guesses = {place: guess for place, guess in guesses.items() if place in read or dense is None}
    likely = frozenset(place for place, guess in guesses.items() if guess.likely)
    classes = {name: type(module).__qualname__ for name, module in naming.named_modules(model)}
    best, most = likely, -1
    if dense is not None and guesses:
        expected = {shape for shape in shapes if shape is not None}
        for chosen in itertools.islice(dict.fromkeys(_choices(guesses, likely, classes)), _TRIALS):
            slim = _run(model, calls, train, structure=_with(structure, guesses, chosen))
            if slim is None or slim.computed != dense.computed:
                continue
            # Heads may be as many as a head has channels: both ways run, but the shapes differ.
            seen = len(expected & slim.shapes)
            if seen > most:
                best, most = chosen, seen
            if seen == len(expected):
                break
    return _with(structure, guesses, best)


def _choices(
    guesses: Mapping[Place, Guess], likely: frozenset[Place], classes: Mapping[str, str]
) -> Iterator[frozenset[Place]]:
    """Choices to try, the most likely first; modules of one class are treated alike."""
    yield likely
    yield frozenset()
    yield likely | {place for place, guess in guesses.items() if guess.enters}
    yield frozenset(guesses)
    for alike in dict.fromkeys((classes[name], attribute) for name, attribute in guesses):
        yield likely ^ {place for place in guesses if (classes[place[0]], place[1]) == alike}


def _with(structure: Structure, guesses: Mapping[Place, Guess], chosen: frozenset[Place]) -> Structure:
    attributes = {name: dict(values) for name, values in structure.attributes.items()}
    for name, attribute in guesses:
        if (name, attribute) in chosen:
            attributes.setdefault(name, {})[attribute] = guesses[name, attribute].value
    return replace(structure, attributes=attributes)


class _Operators(OperationMode):
    """Writes down every operation that computes something, and the shapes of what all operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.computed: list[torch._ops.OpOverload] = []
        self.shapes: set[tuple[int, ...]] = set()

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """See `OperationMode`."""
        # How a reshape is done depends on the sizes.
        if not is_view(func) and func not in (torch.ops.aten.clone.default, torch.ops.aten._unsafe_view.default):
            self.computed.append(func)
        result = run(func, args, kwargs)
        self.shapes.update(tuple(tensor.shape) for tensor in tensors((result,)))
        return result


def _run(
    model: nn.Module,
    calls: Sequence[Call],
    train: bool,
    watched: Mapping[Place, Guess] | None = None,
    read: set[Place] | None = None,
    structure: Structure | None = None,
) -> _Operators | None:
    """The operations of a network, or of the slim network of a structure; None if it does not run.

    Args:
        model: The dense network.
        calls: How it is run.
        train: Run it in train mode as well, which reaches more of it.
        watched: Numbers of which it is noted whether the forward reads them.
        read: Where that is noted.
        structure: What the slim network keeps.
    """
    from lightning_ke.slim.cut import shrink  # which rests on this package

    for convert in (without_data, with_data):
        network = private_copy(naming.unwrap(model), convert)
        operators = _Operators()
        # Nothing is learned from a network that does not run; extraction will say why it does not.
        with suppress(Exception):
            if structure is not None:
                shrink(network, structure)
            modules = dict(naming.named_modules(network))
            for name, attribute in watched or ():
                _watch(modules[name], attribute, (name, attribute), set() if read is None else read)
            for switch in (nn.Module.eval, train_whole) if train else (nn.Module.eval,):
                switch(network)
                for call in calls:
                    args, kwargs = copy_inputs((tuple(call.args), dict(call.kwargs)), convert)
                    with quiet_world(), operators:
                        modules[call.module](*args, **kwargs)
            return operators
    return None


def _watch(module: nn.Module, attribute: str, place: Place, read: set[Place]) -> None:
    """Note whether code reads an attribute of a module of a private copy."""

    def look(self: nn.Module) -> Any:
        read.add(place)
        return vars(self)[attribute]

    def change(self: nn.Module, value: Any) -> None:
        vars(self)[attribute] = value

    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {attribute: property(look, change)})
