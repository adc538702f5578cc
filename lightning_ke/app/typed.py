"""Values of the wrong type and keys that nobody takes, found before anything is built."""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig

from lightning_ke.app.build import members, plain, target_of
from lightning_ke.naming import did_you_mean

# Keys of conf/train.yaml that stand outside of any group: what they hold, and which numbers make sense.
_OWN: dict[str, tuple[Any, int | None, int | None]] = {
    "seed": (int, 0, 2**32 - 1),  # NumPy takes no larger one
    "threads": (int | None, 1, None),
    "channels_last": (bool, None, None),
    "warmup": (int, 0, None),
    "monitor": (str, None, None),
    "mode": (str, None, None),
}
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
_SEQUENCES = (collections.abc.Sequence, list, tuple)


def check_types(config: DictConfig) -> None:
    """Refuse values that are no value of their argument's type, and keys that are no argument of their target.

    Types that are more than numbers, strings, choices and sequences of them are left to the target.

    Args:
        config: The composed configuration.

    Raises:
        ValueError: Naming the key.
    """
    for name, (hint, least, most) in _OWN.items():
        value = config[name]
        fits = _is(value, hint)
        if fits and value is not None:
            fits = (least is None or value >= least) and (most is None or value <= most)
        if not fits:
            bound = ("" if least is None else f" of at least {least}") + ("" if most is None else f", at most {most}")
            raise ValueError(f"Expected `{name}` to be {_words(hint)}{bound}, but got {value!r}.")
    groups = {group: members(config, group) for group in ("callbacks", "logger")}
    built = {f"{group}.{name}": plain(node) for group, nodes in groups.items() for name, node in nodes.items()}
    for key, node in {**built, "scheduler.factory": plain(config.scheduler.factory)}.items():
        if node is not None and not (isinstance(node, Mapping) and "_target_" in node):
            raise ValueError(f"Expected `{key}` to have a `_target_`, or to be null to leave it out, but got {node!r}.")
    for key, node in _nodes(plain(config), ""):
        _check_node(key, node)


def _check_node(key: str, node: Mapping[str, Any]) -> None:
    target = target_of(node)
    hints, complete = _arguments(target)
    name = node["_target_"].rpartition(".")[2]
    for argument, value in node.items():
        if argument.startswith("_"):
            continue
        if argument not in hints:
            if complete:
                known = sorted(hints.keys() - {"self"})
                raise ValueError(
                    f"Expected `{key}.{argument}` to be an argument of {name}, but it takes none of that name. "
                    + did_you_mean(argument, known, f"It takes {', '.join(known)}.")
                )
        elif not _is(value, hints[argument]):
            raise ValueError(
                f"Expected `{key}.{argument}` to be {_words(hints[argument])}, but got {value!r}. See `{name}`."
            )


def _nodes(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a ``_target_``, with its key."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from _nodes(value, f"{key}.{name}" if key else str(name))


def _arguments(target: Any) -> tuple[dict[str, Any], bool]:
    """The arguments of a target with their types (None: not known), and whether these are all that it takes."""
    functions = [target]
    if inspect.isclass(target):
        # A constructor that takes any keyword passes them on to the next one.
        functions = [
            vars(base)["__init__"] for base in target.__mro__ if "__init__" in vars(base) and base is not object
        ]
    hints: dict[str, Any] = {}
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            return hints, False
        try:
            known = get_type_hints(function)
        except Exception:  # names that only a type checker imports
            known = {}
        for name, parameter in parameters.items():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                hints.setdefault(name, known.get(name))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return hints, True
    return hints, False


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is one of a type; anything is one of a type that is not understood."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_is(value, choice) for choice in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin in _SEQUENCES:
        inside = [choice for choice in get_args(hint) if choice is not ...]
        return isinstance(value, (list, tuple)) and all(any(_is(item, choice) for choice in inside) for item in value)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    # Python 3.10 takes dict[str, int] for a type, too.
    if origin is None and isinstance(hint, type) and not isinstance(value, Mapping):
        return isinstance(value, hint)
    return True  # built from a node of its own, or of a type that says more than can be checked here


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_words(choice) for choice in get_args(hint)))
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if origin in _SEQUENCES:
        return "a list"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))
