"""A sparse phase: the smallest weights are zero for a while, then free again (DSD, AC/DC)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_ke.arguments import check_choice
from lightning_ke.masks import Mask
from lightning_ke.packing import Bits
from lightning_ke.phases.base import Phase, Scene, zero, zero_gradient
from lightning_ke.splits.base import check_rate
from lightning_ke.splits.ranked import highest


class Sparse(Phase):
    """Hold the smallest weights at zero during the phase; free them, without momentum, behind it.

    Which weights are held is decided once, when the phase begins: exactly the share, rounded down.

    Args:
        share: Share of the weights that are held at zero, in (0, 1).
        begin: As for every phase.
        end: As for every phase.
        scope: "tensor" takes the share of each weight tensor (DSD), "all" of all of them together (AC/DC).
        first_generation: As for every phase.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        "DSD: Dense-Sparse-Dense Training for Deep Neural Networks" (ICLR 2017); "AC/DC: Alternating
        Compressed/DeCompressed Training of Deep Neural Networks" (NeurIPS 2021).

    Example:
        >>> from torch import nn
        >>> layer, phase = nn.Linear(2, 1, bias=False), Sparse(0.5)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.1, 0.7]]))
        >>> phase.enter(Scene(layer, (), None, None, generation=1))
        >>> print(*(round(value, 1) for value in layer.weight.flatten().tolist()))
        0.0 0.7
    """

    name: ClassVar[str] = "sparse"
    forgets: ClassVar[bool] = True

    def __init__(
        self,
        share: float = 0.5,
        begin: float = 0.0,
        end: float = 1.0,
        scope: Literal["tensor", "all"] = "tensor",
        first_generation: int = 1,
    ) -> None:
        super().__init__(begin, end, first_generation)
        check_choice("scope", scope, ("tensor", "all"))
        self.share = check_rate(share, "share", "the share of the weights that are held at zero")
        self.scope = scope
        self._free = Mask({})

    def enter(self, scene: Scene) -> None:
        """Choose the smallest weights and set them to zero."""
        # On the CPU, whose selection is the same everywhere and allowed in deterministic runs.
        sizes = {name: weight.detach().abs().flatten().to("cpu", torch.float32) for name, weight in scene.weights()}
        shapes = {name: weight.shape for name, weight in scene.weights()}
        if self.scope == "all":
            held = _smallest(torch.cat(list(sizes.values())), self.share)
            parts = dict(zip(sizes, held.split_with_sizes(list(map(len, sizes.values()))), strict=True))
        else:
            parts = {name: _smallest(size, self.share) for name, size in sizes.items()}
        self._free = Mask({name: Bits.pack(~where.view(shapes[name])) for name, where in parts.items()})
        self.after_step(scene)

    def before_step(self, scene: Scene) -> None:
        """Give held weights no gradient, so that no momentum gathers."""
        for name, weight in scene.weights():
            if name in self._free:
                zero_gradient(weight, self._held(name, weight))

    def after_step(self, scene: Scene) -> None:
        """Set held weights back to zero."""
        for name, weight in scene.weights():
            if name in self._free:
                zero(weight, self._held(name, weight))

    def leave(self, scene: Scene) -> None:
        """Free all weights; those that were held begin without an optimizer's state."""
        for name, weight in scene.weights():
            if name in self._free:
                scene.forget(weight, self._held(name, weight))
        self._free = Mask({})

    def _held(self, name: str, weight: Tensor) -> Tensor:
        return ~self._free[name].to(weight.device)

    def state_dict(self) -> dict[str, Any]:
        """Which weights are held."""
        return {"free": self._free.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up which weights are held."""
        self._free = Mask.from_state_dict(state["free"])


def _smallest(sizes: Tensor, share: float) -> Tensor:
    """Where a share of the entries, rounded down, has the smallest sizes; of equal ones the first."""
    count = int(share * len(sizes))
    return highest(-sizes.nan_to_num(math.inf), count) if count else torch.zeros_like(sizes, dtype=torch.bool)
