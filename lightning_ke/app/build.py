"""Objects from the configuration: the one place that instantiates what a configuration names."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer


def build(node: Any, **arguments: Any) -> Any:
    """Build what a configuration node describes.

    Args:
        node: A node with a ``_target_``, a mapping of such nodes, or None.
        **arguments: Further keyword arguments of the target.

    Example:
        >>> build({"_target_": "fractions.Fraction", "numerator": 1}, denominator=2)
        Fraction(1, 2)
    """
    return None if node is None else instantiate(node, _convert_="all", **arguments)


@contextmanager
def importable_from(folder: Path) -> Iterator[None]:
    """Let a ``_target_`` name a module that lies in a folder, after all that is installed.

    Args:
        folder: The folder.
    """
    here = str(folder)
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def target_of(node: Any) -> Any:
    """Import what a node's ``_target_`` names.

    Args:
        node: A node with a ``_target_``.

    Raises:
        ValueError: If there is nothing of that name.

    Example:
        >>> target_of({"_target_": "fractions.Fraction"})
        <class 'fractions.Fraction'>
    """
    try:
        return get_object(node["_target_"])
    except Exception as error:
        raise ValueError(
            f"Expected `_target_` to name something that can be imported, but got {node['_target_']!r}: "
            f"{' '.join(str(error).split())}"
        ) from error


def taken_by(node: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the known arguments that a node's target takes by name.

    Args:
        node: A node with a ``_target_``; what stands in it goes before what is known.
        known: Values by argument name.

    Example:
        >>> taken_by({"_target_": "fractions.Fraction", "numerator": 1}, {"numerator": 5, "denominator": 2, "x": 0})
        {'denominator': 2}
    """
    parameters = inspect.signature(target_of(node)).parameters
    return {name: value for name, value in known.items() if name in parameters and name not in node}


def check_filled(key: str, node: Any, known: Iterable[str]) -> None:
    """Refuse a node whose target needs an argument that nobody gives it.

    Args:
        key: The node's key.
        node: A node with a ``_target_``.
        known: Names of the arguments that it is given beside those that stand in it.

    Raises:
        ValueError: Naming the argument.

    Example:
        >>> check_filled("own", {"_target_": "string.Template"}, ["backbone"])
        Traceback (most recent call last):
        ...
        ValueError: Expected a value for `own.template`, which Template needs, but it has none. Add +own.template=VALUE.
    """
    given = {*node, *known}
    for name, parameter in inspect.signature(target_of(node)).parameters.items():
        optional = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if not optional and parameter.default is parameter.empty and name not in given:
            raise ValueError(
                f"Expected a value for `{key}.{name}`, which {node['_target_'].rpartition('.')[2]} needs, but it has "
                f"none. Add +{key}.{name}=VALUE."
            )


def build_optimizer(node: Any) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """Build an optimizer's factory, and try it: torch checks its arguments when training has begun, which is late.

    Args:
        node: A node whose ``_target_`` takes parameters.

    Raises:
        ValueError: If the optimizer refuses its arguments, or if one of them is not finite.

    Example:
        >>> build_optimizer({"_target_": "torch.optim.SGD", "_partial_": True, "lr": -1})
        Traceback (most recent call last):
        ...
        ValueError: Expected `optimizer` to have arguments that SGD takes, but it says: Invalid learning rate: -1
    """
    for argument, value in plain(node).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):  # torch compares, and nan is not below 0
                raise ValueError(f"Expected `optimizer.{argument}` to be finite, but got {value}. Give a number.")
    make: Callable[[Iterable[nn.Parameter]], Optimizer] = build(node)
    try:
        make([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as error:
        name = node["_target_"].rpartition(".")[2]
        raise ValueError(f"Expected `optimizer` to have arguments that {name} takes, but it says: {error}") from error
    return make


def members(config: DictConfig, group: str) -> dict[str, Any]:
    """The nodes of a group that may have several, by name: without those that are null, none at all after `~logger`.

    Args:
        config: The composed configuration.
        group: ``"callbacks"`` or ``"logger"``.

    Example:
        >>> members(OmegaConf.create({"logger": {"csv": {"save_dir": "log"}, "wandb": None}}), "logger")
        {'csv': {'save_dir': 'log'}}
    """
    return {name: node for name, node in (config.get(group) or {}).items() if node is not None}


def plain(node: Any) -> Any:
    """The values of a configuration node as plain dicts, lists, numbers and strings.

    Args:
        node: A configuration node or something plain already.
    """
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
