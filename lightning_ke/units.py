"""What is redrawn together: a module and the parameters that its own reset fills.

Three kinds of module hold parameters, and splits and redraws treat them apart:

- *norm*: torch's batch, instance, group, layer and RMS norms and their subclasses;
- *layer*: a module with a `reset_parameters` of its own (convolution, linear, embedding, LSTM, attention, your own);
- *bare*: all others, where nothing says how a parameter was first drawn (class token, position embedding), and leaves
  that hold nothing but vectors (layer scale, PReLU slopes). Bare parameters are never redrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from lightning_ke.naming import join_name, named_modules
from lightning_ke.sharding import gather

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Unit:
    """A module that holds parameters.

    Args:
        name: Canonical name of the module.
        module: The module.
        parameters: Its parameters by their dotted name within the module, tied ones only where they are met first.
    """

    name: str
    module: nn.Module
    parameters: dict[str, nn.Parameter]

    @property
    def kind(self) -> Literal["norm", "layer", "bare"]:
        """Which of the three kinds of module it is."""
        if is_norm(self.module):
            return "norm"
        if own_reset(self.module) is None:
            return "bare"
        leaf = not any(child is not None for child in self.module._modules.values())
        vectors = all(parameter is None or parameter.ndim < 2 for parameter in self.module._parameters.values())
        return "bare" if leaf and vectors else "layer"

    def canonical(self, local: str) -> str:
        """Canonical name of one of its parameters.

        Args:
            local: Dotted name of the parameter within the module.
        """
        return join_name(self.name, local)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters of a layer that are weights, by name within the module: two and more dimensions, no bias.

        A vector in disguise, such as a scale of shape (heads, 1, 1), is none.
        """
        if self.kind != "layer":
            return {}
        return {
            local: parameter
            for local, parameter in self.parameters.items()
            if parameter.ndim >= 2
            and not local.rpartition(".")[2].startswith("bias")
            and (local.endswith("weight") or sum(size > 1 for size in parameter.shape) > 1)
        }


@dataclass(frozen=True)
class StandIn:
    """A private copy of a unit, on the CPU and in float32, into which fresh values are drawn.

    Args:
        name: Canonical name of the module.
        module: The copy. Its parameters are NaN until they are drawn; its buffers are copies.
        locals: Dotted names, within the module, of the parameters to draw.
        unit: What it stands in for; resets read it through `current` only.
    """

    name: str
    module: nn.Module
    locals: tuple[str, ...]
    unit: Unit

    @classmethod
    def of(cls, unit: Unit, device: Literal["cpu", "meta"] = "cpu") -> StandIn:
        """Build the stand-in of a unit.

        Args:
            unit: A module that holds parameters.
            device: "meta" for one without data, on which a reset does nothing but say what it would do.
        """
        stand_in = cls(unit.name, _clone(unit.module, device), tuple(unit.parameters), unit)
        for values in stand_in.parameters.values():
            values.fill_(float("nan"))
        return stand_in

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters to draw, by canonical name."""
        return {join_name(self.name, local): self.module.get_parameter(local) for local in self.locals}

    def current(self, name: str) -> Tensor:
        """Copy the values that a parameter has before it is redrawn, for a reset that keeps something of them.

        Args:
            name: Canonical name of the parameter.

        Returns:
            A new tensor on the CPU, in double precision if the parameter is, else in float32.
        """
        values = next(p for local, p in self.unit.parameters.items() if self.unit.canonical(local) == name)
        return gather(values).detach().to("cpu", torch.promote_types(values.dtype, torch.float32), copy=True)

    def replace(self, name: str, values: Tensor) -> None:
        """Put a tensor of another precision in a parameter's place.

        Args:
            name: Canonical name of the parameter.
            values: Its values.
        """
        path, _, attribute = name[len(self.name) :].lstrip(".").rpartition(".")
        self.module.get_submodule(path)._parameters[attribute] = nn.Parameter(values, requires_grad=False)


def units(model: nn.Module) -> Iterator[Unit]:
    """Yield every module that holds parameters, and every norm; each parameter exactly once.

    Args:
        model: A network, wrapped or not.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> [(unit.name, unit.kind, list(unit.parameters)) for unit in units(net)]
        [('0', 'layer', ['weight', 'bias']), ('1', 'norm', ['weight', 'bias'])]
    """
    seen: set[int] = set()
    for name, module in named_modules(model):
        parameters = {}
        held = dict(module._parameters)
        for child in _inner(module):
            held.update({f"{child}.{local}": p for local, p in module.get_submodule(child)._parameters.items()})
        for local, parameter in held.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                parameters[local] = parameter
        # A norm without parameters still has running statistics.
        if parameters or is_norm(module):
            yield Unit(name, module, parameters)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm layer.

    Args:
        module: Any module.

    Example:
        >>> is_norm(nn.SyncBatchNorm(2)), is_norm(nn.Linear(2, 2))
        (True, False)
    """
    return isinstance(module, _NORMS)


def filters_dim(module: nn.Module) -> Literal[0, 1]:
    """Which of the first two dimensions of a layer's weights counts what it puts out; the other one is what it reads.

    Args:
        module: A layer.

    Example:
        >>> filters_dim(nn.Conv2d(2, 3, 1)), filters_dim(nn.ConvTranspose2d(2, 3, 1)), filters_dim(nn.Embedding(5, 2))
        (0, 1, 1)
    """
    return 1 if isinstance(module, (_ConvTransposeNd, nn.Embedding, nn.EmbeddingBag)) else 0


def own_reset(module: nn.Module) -> Callable[[], None] | None:
    """Return the function by which a module draws its own parameters afresh, None if it has none.

    Args:
        module: Any module.
    """
    if isinstance(module, nn.MultiheadAttention):

        def reset_attention() -> None:
            # As at construction: attention's own reset follows and zeroes the bias of the projection.
            module.out_proj.reset_parameters()
            module._reset_parameters()

        return reset_attention
    reset = getattr(module, "reset_parameters", None)
    return reset if callable(reset) else None


def _inner(module: nn.Module) -> tuple[str, ...]:
    """Children whose parameters are drawn by the module itself."""
    return ("out_proj",) if isinstance(module, nn.MultiheadAttention) else ()


def _clone(module: nn.Module, device: str) -> nn.Module:
    """Copy a module without running its constructor and without copying a single weight.

    Children belong to other units. They are there for a parent's reset that also resets them or asks for their device;
    unless it does, the memory of their parameters is never touched.
    """
    clone: nn.Module = object.__new__(type(module))
    clone.__dict__.update(module.__dict__)
    own = vars(module).get("reset_parameters")
    if isinstance(own, MethodType) and own.__self__ is module:  # a method that somebody gave to this instance alone
        clone.__dict__["reset_parameters"] = own.__func__.__get__(clone)
    clone.__dict__["_parameters"] = {
        name: parameter
        if parameter is None
        else nn.Parameter(torch.empty(parameter.shape, dtype=torch.float32, device=device), requires_grad=False)
        for name, parameter in module._parameters.items()
    }
    clone.__dict__["_buffers"] = {
        name: buffer if buffer is None else buffer.detach().to(device, copy=True)
        for name, buffer in module._buffers.items()
    }
    clone.__dict__["_modules"] = {
        name: child if child is None else _clone(child, device) for name, child in module._modules.items()
    }
    return clone
