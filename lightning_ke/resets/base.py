"""What every way of drawing fresh values is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from lightning_ke.masks import Mask
from lightning_ke.units import StandIn


class Reset(ABC):
    """How fresh values are drawn, one module at a time.

    Subclass it to draw them in your own way and give the object as `reset`. `draw` runs under a random stream that is
    keyed by (seed, generation, module), so it may use the global functions (``torch.randn``, ``random``, ``numpy``) and
    still gives the same values on every rank and after a resume.

    Example:
        >>> import torch
        >>> class Halves(Reset):
        ...     name = "halves"
        ...
        ...     def draw(self, stand_in):
        ...         for values in stand_in.parameters.values():
        ...             values.fill_(0.5)
        >>> from lightning_ke.masks import Mask
        >>> from lightning_ke.redrawing import redraw
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> mask = Mask.from_tensors({"weight": torch.tensor([[False, False]])})
        >>> redraw(layer, mask, generation=2, reset=Halves()).redrawn
        {'weight': 2}
        >>> layer.weight.tolist()
        [[0.5, 0.5]]
    """

    #: Name in the registry.
    name: ClassVar[str]
    #: One line on the values.
    description: ClassVar[str] = ""
    #: False if nothing is ever redrawn.
    redraws: ClassVar[bool] = True
    #: True if `remember` keeps values of the whole network, of which each rank of a sharded network holds a part.
    keeps_values: ClassVar[bool] = False
    #: True if `draw` builds on the weights that there are (`StandIn.current`): it cannot be done twice.
    reads_current: ClassVar[bool] = False
    #: True if a parameter that `draw` leaves (partly) NaN is kept as it is; otherwise that is an error.
    keeps_undrawn: ClassVar[bool] = False

    @property
    def ready(self) -> bool:
        """False as long as `remember` has to be called first."""
        return True

    def remember(self, model: nn.Module, mask: Mask | None) -> None:
        """Look at the network before it is trained.

        Args:
            model: The network with its first values.
            mask: What is fit, so what can be redrawn; None if a new mask is drawn for every generation.
        """
        return

    @abstractmethod
    def draw(self, stand_in: StandIn) -> None:
        """Fill the parameters of a stand-in with fresh values, in place.

        Args:
            stand_in: A private copy of one module, on the CPU and in float32. The real module must not be touched.
        """

    def state_dict(self) -> dict[str, Any]:
        """What was remembered, in plain, weights-only types."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what another object of this class remembered.

        Args:
            state: What `state_dict` returned.
        """
        return
