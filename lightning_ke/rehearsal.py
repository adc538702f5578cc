"""What a redraw would run of the layers' own code is run before the training: what fails, fails at once."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from lightning_ke.keyed_rng import forked_rng
from lightning_ke.redrawing import draw_unit
from lightning_ke.resets import Reset
from lightning_ke.units import own_reset, units


def rehearse(model: nn.Module, names: Collection[str], reset: Reset) -> None:
    """Draw once, and throw away, what a redraw would draw by layers' own `reset_parameters`.

    torch's layers are left out: they are known to work. So is a `Reset` of the user's own, which may count its draws.
    Nothing of the network changes.

    Args:
        model: The network.
        names: Canonical names of the parameters that a redraw would change.
        reset: How values are drawn.

    Raises:
        RuntimeError: If a layer's reset fails, or writes into the network itself.

    Example:
        >>> class Scaled(nn.Linear):
        ...     def reset_parameters(self, scale=None):
        ...         nn.init.normal_(self.weight, std=1 / scale)
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> layer.__class__ = Scaled
        >>> from lightning_ke.resets import get_reset
        >>> rehearse(layer, ["weight"], get_reset("layer"))
        Traceback (most recent call last):
        ...
        RuntimeError: Expected `model` (Scaled) to redraw its parameters by `reset_parameters()`, but that failed with \
TypeError: unsupported operand type(s) for /: 'int' and 'NoneType'. Exclude its parameters by `exclude`, or give a \
`Reset` object of your own.
    """
    if not reset.redraws or not type(reset).__module__.startswith("lightning_ke."):
        return
    due = frozenset(names)
    with torch.no_grad(), forked_rng() as seed_by:
        for unit in units(model):
            if due.isdisjoint(unit.canonical(local) for local in unit.parameters):
                continue
            known = str(getattr(own_reset(unit.module), "__module__", "")).startswith("torch.nn.")
            if not known:
                seed_by("rehearsal", unit.name)
                draw_unit(unit, reset)
