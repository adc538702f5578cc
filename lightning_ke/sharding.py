"""Networks of which each rank holds a part: FSDP2 and tensor parallelism, whose parameters are DTensors.

Nothing here imports torch's distributed packages: whoever has such a network has imported them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.naming import named_parameters, own_parameters

_PLAIN = frozenset({Tensor, nn.Parameter})

#: Where in a whole tensor a part of it lies: one slice per dimension.
Region = tuple[slice, ...]

# Attributes of a module in which `fully_shard` keeps its books.
_BOOKS = ("__composable_api_", "_is_fsdp_managed_module", "_fsdp_use_orig_params")


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which this rank may hold a part only.

    Args:
        tensor: Any tensor.

    Example:
        >>> is_sharded(torch.zeros(2))
        False
    """
    return type(tensor) not in _PLAIN and hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def has_shards(model: nn.Module) -> bool:
    """Return whether a network has parameters that are DTensors.

    Args:
        model: The network.

    Example:
        >>> has_shards(nn.Linear(2, 2))
        False
    """
    return any(is_sharded(parameter) for _, parameter in named_parameters(model))


def is_mesh(item: object) -> bool:
    """Return whether something is a device mesh, which a LightningModule holds and nobody can copy.

    Args:
        item: Any object.
    """
    return type(item).__name__ == "DeviceMesh"


def own_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory; a plain tensor is its own part.

    Args:
        tensor: A plain tensor or a DTensor.
    """
    held: Any = tensor.detach()
    part: Tensor = held.to_local() if is_sharded(held) else held
    return part


def gather(tensor: Tensor) -> Tensor:
    """The whole tensor. Of a DTensor all ranks must ask for it at the same time.

    Args:
        tensor: A plain tensor, which is returned as it is, or a DTensor.
    """
    held: Any = tensor.detach()
    whole: Tensor = held.full_tensor() if is_sharded(held) else tensor
    return whole


def region_of(tensor: Tensor) -> Region | None:
    """Where this rank's part of a DTensor lies in the whole one, without asking another rank; None for a plain tensor.

    Args:
        tensor: A parameter or buffer.
    """
    if not is_sharded(tensor):
        return None
    sharded: Any = tensor
    kind, mesh = type(sharded), sharded.device_mesh
    everywhere = _replicated(sharded)
    region = []
    for dim, size in enumerate(sharded.shape):
        # Along one dimension at a time, the way from whole to part is the tensor's own; it is a local one.
        shape = [1] * sharded.dim()
        shape[dim] = size
        index = torch.arange(size, device=own_part(sharded).device).view(shape)
        along = [
            placement if getattr(placement, "dim", None) == dim else whole
            for placement, whole in zip(sharded.placements, everywhere, strict=True)
        ]
        mine = kind.from_local(index, mesh, everywhere, run_check=False).redistribute(placements=along).to_local()
        start = int(mine.flatten()[0]) if mine.numel() else 0
        region.append(slice(start, start + mine.numel()))
    return tuple(region)


def _replicated(tensor: Any) -> list[Any]:
    """The placements of a tensor that every rank of a DTensor's mesh holds whole."""
    package: Any = import_module("torch.distributed.tensor")
    return [package.Replicate()] * int(tensor.device_mesh.ndim)


def settle(model: nn.Module) -> None:
    """Let FSDP put every parameter's shard back in its place: after a validation it may have left gathered ones there.

    Args:
        model: The network, between two forwards.
    """
    for module in model.modules():
        if _is_fully_sharded(module):
            fsdp: Any = module
            fsdp.reshard()


@contextmanager
def plain_modules(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Take the classes, hooks and books of FSDP2 and tensor parallelism off a network, so that it can be copied.

    What is copied meanwhile is the network as its author wrote it. Parameters stay DTensors.

    Args:
        modules: All modules of the network; they are as before when the block ends.
    """
    before: list[tuple[nn.Module, type[nn.Module], dict[str, Any]]] = []
    if any(is_sharded(parameter) for _, parameter in own_parameters(("", module) for module in modules)):
        before = [(module, type(module), dict(module.__dict__)) for module in modules]
    try:
        for module, kind, held in before:
            if _is_fully_sharded(module):
                names = [base.__name__ for base in kind.__mro__]
                object.__setattr__(module, "__class__", kind.__mro__[names.index("FSDPModule") + 1])
            for name, value in held.items():
                if name.startswith(_BOOKS):
                    del module.__dict__[name]
                elif name.endswith("_hooks") and isinstance(value, Mapping):
                    own = ((key, hook) for key, hook in value.items() if not _is_of_distributed(hook))
                    module.__dict__[name] = OrderedDict(own)
        yield
    finally:
        for module, kind, held in before:
            object.__setattr__(module, "__class__", kind)
            module.__dict__.clear()
            module.__dict__.update(held)


def _is_fully_sharded(module: nn.Module) -> bool:
    return any(base.__name__ == "FSDPModule" for base in type(module).__mro__)


def _is_of_distributed(hook: Any) -> bool:
    function = getattr(hook, "__func__", hook)
    return str(getattr(function, "__module__", "")).startswith("torch.distributed.")
