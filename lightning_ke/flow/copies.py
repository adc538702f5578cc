"""Private copies of networks: what the flow traces and the proof changes is never the user's own module."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.compiled import uncompiled
from lightning_ke.sharding import is_mesh, plain_modules

#: What a copy shares with the original.
_ATOMIC = frozenset(
    {int, float, bool, str, bytes, complex, type(None), type, type(len), type(lambda: None), torch.dtype}
)
_NO_TENSORS = _ATOMIC | {dict, OrderedDict, list, tuple, set}
#: The containers that torch gives to every module.
_OF_EVERY_MODULE = frozenset(name for name, value in vars(nn.Module()).items() if isinstance(value, (dict, set)))
_HELD, _DICTS = frozenset({"_parameters", "_buffers"}), frozenset({dict, OrderedDict})
#: How a module says that it wants to be copied in its own way.
_OWN_WAYS = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__")
#: What torch's modules inherit of these; the convolution's fills in what old pickles lack.
_COMMON = (*(getattr(nn.Module, way, None) for way in _OWN_WAYS), nn.modules.conv._ConvNd.__setstate__)


def private_copy(network: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """Deep-copy a network, its tensors converted; a LightningModule leaves its Trainer behind by itself.

    Args:
        network: The network; it is not changed.
        convert: Makes the copy of one tensor; called once per tensor, so that tied weights stay tied.
    """
    modules = list(network.modules())
    with plain_modules(modules), uncompiled(modules):
        return _copy(network, modules, convert)


def _copy(network: nn.Module, modules: Sequence[nn.Module], convert: Callable[[Tensor], Tensor]) -> nn.Module:
    memo: dict[int, Any] = {}
    # Copying attribute by attribute takes a tenth of the time of `copy.deepcopy`, which copies each of the dozen empty
    # containers for hooks that a module has; whatever is not plain is left to it, once all tensors are converted.
    kinds = {kind for kind in {type(module) for module in modules} if _is_plain(kind)}
    plain = [module for module in modules if type(module) in kinds]
    for module in plain:
        memo[id(module)] = object.__new__(type(module))
    for module in modules:
        for held in (module._parameters, module._buffers):
            for tensor in held.values():
                if tensor is not None and id(tensor) not in memo:
                    memo[id(tensor)] = convert(tensor)
        if type(module) not in kinds:
            _convert(vars(module), memo, convert)
    left: list[tuple[dict[str, Any], str, Any]] = []
    for module in plain:
        _copy_plain(module, memo, left)
    for _, _, value in left:
        _convert({"": value}, memo, convert)
    for own, name, value in left:
        own[name] = _copied(value, memo)
    copied: nn.Module = copy.deepcopy(network, memo)
    return copied


def _copy_plain(module: nn.Module, memo: dict[int, Any], left: list[tuple[dict[str, Any], str, Any]]) -> None:
    """Copy the attributes of a module that are quick to copy; the others join what is left, with where they belong."""
    own, held = vars(memo[id(module)]), vars(module)
    own.update(held)
    for name, value in held.items():
        kind = type(value)
        if kind in _ATOMIC:
            continue
        if name in _OF_EVERY_MODULE and not value:  # no two modules share these
            own[name] = kind()
        elif kind is tuple and _ATOMIC.issuperset(map(type, value)):
            continue
        elif kind in _DICTS and name in _HELD:
            own[name] = copied = kind()
            for key, tensor in value.items():
                copied[key] = None if tensor is None else memo[id(tensor)]
        else:
            left.append((own, name, value))


def _convert(held: Mapping[str, Any], memo: dict[int, Any], convert: Callable[[Tensor], Tensor]) -> None:
    """Convert the tensors among some attributes, each once."""
    for value in held.values():
        if type(value) in _NO_TENSORS or id(value) in memo:
            continue
        if isinstance(value, Tensor):
            memo[id(value)] = convert(value)
        elif is_mesh(value):
            memo[id(value)] = value


def _is_plain(kind: type[nn.Module]) -> bool:
    return all(getattr(kind, way, None) in _COMMON for way in _OWN_WAYS)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMIC:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in (dict, OrderedDict):
        memo[id(value)] = new = kind()
        for key, item in value.items():
            new[key if type(key) is str else _copied(key, memo)] = _copied(item, memo)
        return new
    if kind is tuple and _ATOMIC.issuperset(map(type, value)):
        return value
    if kind in (list, set) and not value:
        memo[id(value)] = kind()
        return memo[id(value)]
    return copy.deepcopy(value, memo)
