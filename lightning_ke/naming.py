"""Canonical names: what a parameter is called in the user's own network, whatever wraps it.

A checkpoint of a compiled network says ``_orig_mod.conv.weight``, one of a DDP-wrapped network ``module.conv.weight``.
Masks and redrawn values are keyed by the name without such prefixes, so that a run may be resumed with or without them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# The attributes under which torch's own wrappers keep the wrapped module. No user chooses such names.
_WRAPPER_ATTRIBUTES = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPER_SEGMENT = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(_WRAPPER_ATTRIBUTES)})\.")
# `module` is also an ordinary attribute name, so it only counts as a wrapper's below a module of one of these classes.
_WRAPPER_CLASSES = frozenset({"DistributedDataParallel", "DataParallel"})
_PERHAPS_WRAPPED = frozenset({*_WRAPPER_ATTRIBUTES, "module"})


def canonical_name(name: str) -> str:
    """Strip the segments that ``torch.compile``, FSDP and activation checkpointing put into a dotted name.

    Args:
        name: A dotted parameter, buffer or module name.

    Example:
        >>> canonical_name("_orig_mod.layer1._checkpoint_wrapped_module.conv.weight")
        'layer1.conv.weight'
    """
    return _WRAPPER_SEGMENT.sub("", name + ".")[:-1] if name else name


def join_name(prefix: str, name: str) -> str:
    """Join a module's canonical name, empty for the network itself, and a name below it.

    Args:
        prefix: Canonical name of a module.
        name: Dotted name below it.

    Example:
        >>> join_name("", "weight"), join_name("fc", "weight")
        ('weight', 'fc.weight')
    """
    return f"{prefix}.{name}" if prefix and name else prefix or name


def is_below(name: str, target: str | None) -> bool:
    """Return whether a parameter or module is the target or lies in it.

    Args:
        name: Canonical name of a parameter or module.
        target: Canonical name of a submodule; None is the whole network.

    Example:
        >>> is_below("layer1.0.weight", "layer1"), is_below("layer10.weight", "layer1")
        (True, False)
    """
    return not target or name == target or name.startswith(target + ".")


def nearest_names(name: str, names: Iterable[str], limit: int = 3) -> str:
    """List the existing names that are most like a wrong one, for an error message.

    Args:
        name: The name that does not exist.
        names: The names that do.
        limit: How many to list at most.

    Example:
        >>> nearest_names("layer5", ["layer4", "conv1", "fc"], limit=1)
        "'layer4'"
    """
    candidates = list(names)
    close = difflib.get_close_matches(name, candidates, n=limit, cutoff=0.5) or candidates[:limit]
    return ", ".join(map(repr, close))


def did_you_mean(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """End an error message with the existing name that a wrong one is like, if there is one.

    Args:
        name: The name that does not exist.
        names: The names that do.
        otherwise: What to say if none of them is like it.

    Example:
        >>> did_you_mean("laier", ["layer", "zero"]), did_you_mean("gaussian", ["layer", "zero"])
        ("Did you mean 'layer'?", '')
    """
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.7)
    return f"Did you mean {close[0]!r}?" if close else otherwise


def unwrap(model: nn.Module) -> nn.Module:
    """Return the network inside ``torch.compile``, DDP, DataParallel, FSDP and activation checkpointing wrappers.

    Args:
        model: A network, wrapped or not.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(2, 2)
        >>> unwrap(nn.DataParallel(net)) is net
        True
    """
    while True:
        if _PERHAPS_WRAPPED.isdisjoint(model._modules.keys()):
            return model
        attribute = next((name for name in _WRAPPER_ATTRIBUTES if name in model._modules), None)
        if attribute is None and "module" in model._modules:
            attribute = "module" if any(cls.__name__ in _WRAPPER_CLASSES for cls in type(model).__mro__) else None
        inner = None if attribute is None else model._modules[attribute]
        if inner is None:
            return model
        model = inner


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module once, under its canonical name; of a wrapper and what it wraps, only the latter.

    Args:
        model: A network, wrapped or not, with wrapped modules inside or not.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.compile(torch.nn.ReLU()))
        >>> [name for name, module in named_modules(net)]
        ['', '0']
    """
    found: dict[int, tuple[str, nn.Module]] = {}
    _walk(model, "", found)
    yield from found.values()


def named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter once, under its canonical name; a tied parameter under its first name.

    Args:
        model: A network, wrapped or not.
    """
    return own_parameters(named_modules(model))


def named_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every buffer once, under its canonical name.

    Args:
        model: A network, wrapped or not.
    """
    return own_buffers(named_modules(model))


def own_parameters(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield every parameter once, for whoever has the list of modules already.

    Args:
        modules: What `named_modules` found.
    """
    seen = set()
    for prefix, module in modules:
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{prefix}.{name}" if prefix else name, parameter


def own_buffers(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    """Yield every buffer once, for whoever has the list of modules already.

    Args:
        modules: What `named_modules` found.
    """
    seen = set()
    for prefix, module in modules:
        for name, buffer in module._buffers.items():
            if buffer is not None and id(buffer) not in seen:
                seen.add(id(buffer))
                yield f"{prefix}.{name}" if prefix else name, buffer


def _walk(module: nn.Module, name: str, found: dict[int, tuple[str, nn.Module]]) -> None:
    children = module._modules
    if children and not _PERHAPS_WRAPPED.isdisjoint(children.keys()):
        module = unwrap(module)
        children = module._modules
    if id(module) not in found:
        found[id(module)] = name, module
        if children:
            prefix = f"{name}." if name else ""
            for child_name, child in children.items():
                if child is not None:
                    _walk(child, prefix + child_name, found)
