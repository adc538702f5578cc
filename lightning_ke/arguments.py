"""Checks of plain arguments, in sentences that a user can act on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any


def whole(name: str, value: object, least: int) -> int:
    """A whole number that is large enough, as a Python number.

    NumPy's whole numbers count, too, but seeds are not made with them, nor checkpoints read with ``weights_only=True``.

    Args:
        name: Name of the argument.
        value: What was given for it.
        least: The smallest number that is allowed.

    Raises:
        ValueError: If it is something else; bools are no numbers here.

    Example:
        >>> whole("warmup", 5, least=0)
        5
        >>> whole("warmup", 2.5, least=0)
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `warmup` to be a whole number of at least 0, but got 2.5.
    """
    return _whole(name, value, least, f"at least {least}")


def whole_or_none(name: str, value: object, least: int) -> int | None:
    """The same where None is allowed, too.

    Args:
        name: Name of the argument.
        value: What was given for it.
        least: The smallest number that is allowed.

    Raises:
        ValueError: If it is something else; bools are no numbers here.

    Example:
        >>> whole_or_none("generations", 2.5, least=1)
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `generations` to be a whole number of at least 1 or None, but got 2.5.
    """
    return None if value is None else _whole(name, value, least, f"at least {least} or None")


def _whole(name: str, value: object, least: int, allowed: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"Expected argument `{name}` to be a whole number of {allowed}, but got {value!r}.")
    return int(value)


def check_network(model: object) -> None:
    """Refuse what is no network.

    Args:
        model: What was given for it.

    Raises:
        TypeError: If it is no torch module.

    Example:
        >>> check_network({"weight": 1.0})
        Traceback (most recent call last):
        ...
        TypeError: Expected argument `model` to be a network (a `torch.nn.Module`), but got a dict.
    """
    from torch import nn  # here, because a command that checks other arguments answers without torch

    if not isinstance(model, nn.Module):
        raise TypeError(
            f"Expected argument `model` to be a network (a `torch.nn.Module`), but got a {type(model).__name__}."
        )


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse what is none of the choices.

    Args:
        name: Name of the argument.
        value: What was given for it.
        choices: Strings, or constants such as False.

    Raises:
        ValueError: If it is something else.

    Example:
        >>> check_choice("norm", "drop", ("keep", "reset"))
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `norm` to be one of 'keep', 'reset', but got 'drop'.
    """
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"Expected argument `{name}` to be one of {', '.join(map(repr, choices))}, but got {value!r}.")


def check_patterns(name: str, value: object) -> None:
    """Refuse what is no sequence of patterns.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        TypeError: If it is a string (each of its letters would be a pattern), or if it does not hold strings.

    Example:
        >>> check_patterns("exclude", "head.*")
        Traceback (most recent call last):
        ...
        TypeError: Expected argument `exclude` to be a sequence of patterns, but got the string 'head.*'. Write \
`exclude=('head.*',)`.
    """
    if isinstance(value, str):
        raise TypeError(
            f"Expected argument `{name}` to be a sequence of patterns, but got the string {value!r}. "
            f"Write `{name}=({value!r},)`."
        )
    if not isinstance(value, Collection) or not all(isinstance(pattern, str) for pattern in value):
        raise TypeError(f"Expected argument `{name}` to be a sequence of patterns, but got {value!r}.")


def check_name(name: str, value: object) -> None:
    """Refuse what is no name.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        TypeError: If it is no string.

    Example:
        >>> check_name("monitor", None)
        Traceback (most recent call last):
        ...
        TypeError: Expected argument `monitor` to be a name, but got None.
    """
    if not isinstance(value, str):
        raise TypeError(f"Expected argument `{name}` to be a name, but got {value!r}.")


def check_named(name: str, value: object, attribute: str) -> None:
    """Refuse an object of the user's own class that does not say what it is called.

    Args:
        name: Name of the argument.
        value: The object.
        attribute: The attribute of its class that says so.

    Raises:
        ValueError: If there is none, or if it is no string.

    Example:
        >>> class Own: ...
        >>> check_named("reset", Own(), "name")
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `reset` to have a name for messages and checkpoints, but the class Own has none. \
Write `name = "..."` in it.
    """
    if not isinstance(getattr(value, attribute, None), str):
        raise ValueError(
            f"Expected argument `{name}` to have a name for messages and checkpoints, but the class "
            f'{type(value).__name__} has none. Write `{attribute} = "..."` in it.'
        )


def as_number(value: object) -> float:
    """A real number as a float; NaN, which lies in no range, for anything else.

    Args:
        value: What was given for an argument; bools are no numbers here.

    Example:
        >>> as_number(2), as_number("2"), 0 < as_number(True)
        (2.0, nan, False)
    """
    return math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)


def plain_values(values: Mapping[str, object]) -> dict[str, Any]:
    """Those of an object's values that are numbers, strings or None, as Python's own types.

    NumPy's numbers count as Python's, but a checkpoint that holds one cannot be read with ``weights_only=True``.

    Args:
        values: Values by name.

    Example:
        >>> import numpy as np
        >>> plain_values({"rate": np.float64(0.5), "seed": 3, "name": None, "layers": ["fc"]})
        {'rate': 0.5, 'seed': 3, 'name': None}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                found[name] = kind(value)
                break
        else:
            if value is None:
                found[name] = None
    return found
