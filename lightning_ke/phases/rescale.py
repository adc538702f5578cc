"""Survivors are brought back to the size with which they began (LW)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_ke.phases.base import Phase, Scene
from lightning_ke.units import units


class Rescale(Phase):
    """Scale each weight tensor that a redraw left alone as a whole to its norm before training, once a generation.

    The direction of the weights is what is kept of them. Tensors of which a part is redrawn are left as they are.

    Source:
        "The Impact of Reinitialization on Generalization in Convolutional Neural Networks" (arXiv 2109.00267).

    Example:
        >>> layer, phase = nn.Linear(1, 1, bias=False), Rescale()
        >>> _ = nn.init.constant_(layer.weight, 0.5)
        >>> phase.remember(layer)
        >>> _ = nn.init.constant_(layer.weight, -4.0)
        >>> from lightning_ke.masks import Mask
        >>> phase.enter(Scene(layer, (), Mask.from_tensors({"weight": torch.tensor([[True]])}), None, generation=2))
        >>> layer.weight.item()
        -0.5
    """

    name: ClassVar[str] = "rescale"

    def __init__(self) -> None:
        super().__init__(first_generation=2)
        self._norms: dict[str, float] = {}

    def remember(self, model: nn.Module) -> None:
        """Measure the first norm of every weight."""
        self._norms = {
            unit.canonical(local): _norm(weight) for unit in units(model) for local, weight in unit.weights.items()
        }

    def enter(self, scene: Scene) -> None:
        """Scale what has survived."""
        assert scene.survivors is not None, "no generation but the first is without survivors"
        for name, weight in scene.weights():
            norm = _norm(weight)
            survives = scene.survivors.entry(name).count() == weight.numel()
            if survives and norm > 0 and name in self._norms:
                weight.data.mul_(self._norms[name] / norm)

    def state_dict(self) -> dict[str, Any]:
        """The first norms."""
        return {"norms": dict(self._norms)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the first norms."""
        self._norms = dict(state["norms"])


def _norm(weight: Tensor) -> float:
    # Half precision would round it to three digits.
    return float(torch.linalg.vector_norm(weight.detach(), dtype=torch.promote_types(weight.dtype, torch.float32)))
