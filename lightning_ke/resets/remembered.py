"""Resets that have seen the network before it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.packing import Bits, Channels, Entry, Whole
from lightning_ke.resets.base import Reset
from lightning_ke.resets.drawn import blank_padding
from lightning_ke.sharding import gather
from lightning_ke.units import StandIn, units


class Initial(Reset):
    """Draw from a normal distribution with the mean and the deviation that each parameter had before training.

    Two numbers a parameter are remembered. An embedding's row for padding becomes zero.

    Example:
        >>> reset = Initial()
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 0.25)
        >>> reset.remember(layer, mask=None)
        >>> reset.state_dict()
        {'moments': {'weight': [0.25, 0.0]}}
    """

    name: ClassVar[str] = "initial"
    description: ClassVar[str] = "a normal of each parameter's first mean and deviation"

    def __init__(self) -> None:
        self._moments: dict[str, list[float]] = {}

    @property
    def ready(self) -> bool:
        """False as long as `remember` has to be called first."""
        return bool(self._moments)

    def remember(self, model: nn.Module, mask: Mask | None) -> None:
        """Measure the first mean and deviation of every parameter that can be redrawn.

        Args:
            model: The network with its first values.
            mask: What is fit; None if a new mask is drawn for every generation.
        """
        self._moments = {}
        for name, parameter, _ in _redrawable(model, mask):
            deviation, mean = torch.std_mean(gather(parameter).detach().float(), correction=0)
            self._moments[name] = [float(mean), float(deviation)]

    def draw(self, stand_in: StandIn) -> None:
        """Draw one module's values.

        Args:
            stand_in: A private copy of one module.
        """
        for name, values in stand_in.parameters.items():
            if name in self._moments:
                mean, deviation = self._moments[name]
                values.normal_(mean, deviation)
        blank_padding(stand_in)

    def state_dict(self) -> dict[str, Any]:
        """The remembered means and deviations, by canonical parameter name."""
        return {"moments": {name: list(moments) for name, moments in self._moments.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over remembered means and deviations.

        Args:
            state: What `state_dict` returned.
        """
        self._moments = {name: list(moments) for name, moments in state["moments"].items()}


class Rewind(Reset):
    """Set the reset hypothesis back to the very values that it had before training.

    Only the entries that can be redrawn are remembered, on the CPU and in their own precision.

    Source:
        Rewinding as in "The Lottery Ticket Hypothesis" (ICLR 2019).

    Example:
        >>> from lightning_ke.redrawing import redraw
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 0.25)
        >>> reset, mask = Rewind(), Mask.from_tensors({"weight": torch.tensor([[True, False]])})
        >>> reset.remember(layer, mask)
        >>> _ = nn.init.ones_(layer.weight)
        >>> _ = redraw(layer, mask, generation=2, reset=reset)
        >>> layer.weight.tolist()
        [[1.0, 0.25]]
    """

    name: ClassVar[str] = "rewind"
    description: ClassVar[str] = "the very first values"
    keeps_values: ClassVar[bool] = True

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._mask = Mask({})

    @property
    def ready(self) -> bool:
        """False as long as `remember` has to be called first."""
        return bool(self._values)

    def remember(self, model: nn.Module, mask: Mask | None) -> None:
        """Keep the first values of every entry that can be redrawn.

        Args:
            model: The network with its first values.
            mask: What is fit; None if a new mask is drawn for every generation.
        """
        entries: dict[str, Entry] = {}
        self._values = {}
        for name, parameter, entry in _redrawable(model, mask):
            member = entry.tensor()
            entries[name] = Bits.pack(member) if isinstance(entry, Channels) else entry
            self._values[name] = parameter.detach().cpu().masked_select(~member)
        self._mask = Mask(entries)

    def draw(self, stand_in: StandIn) -> None:
        """Fill in the remembered values.

        Args:
            stand_in: A private copy of one module.
        """
        for name, values in stand_in.parameters.items():
            if name in self._values:
                first = self._values[name]
                if first.dtype is torch.float64:  # float32 would round it
                    stand_in.replace(name, values.double())
                    values = stand_in.parameters[name]
                values.masked_scatter_(~self._mask[name], first.to(values.dtype))

    def state_dict(self) -> dict[str, Any]:
        """The remembered values, by canonical parameter name, and which entries they belong to."""
        return {"values": dict(self._values), "mask": self._mask.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over remembered values.

        Args:
            state: What `state_dict` returned.
        """
        self._values = {name: values.cpu() for name, values in state["values"].items()}
        self._mask = Mask.from_state_dict(state["mask"])


def _redrawable(model: nn.Module, mask: Mask | None) -> Iterator[tuple[str, nn.Parameter, Entry]]:
    """Yield the parameters of layers and norms that are not wholly fit, with their packed masks."""
    for unit in units(model):
        for local, parameter in unit.parameters.items():
            name, shape = unit.canonical(local), tuple(parameter.shape)
            entry = Whole(shape, fit=False) if mask is None else mask.entry(name)
            if unit.kind != "bare" and entry.count() < parameter.numel():
                yield name, parameter, entry
