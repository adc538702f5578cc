"""Most of a generation is trained at the slim network's cost, and only its end in full width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_ke.phases.base import Scene, zero
from lightning_ke.phases.other_step import OtherStep, structure_of
from lightning_ke.slim.within import SlimWithin
from lightning_ke.structure import Structure
from lightning_ke.units import filters_dim, units


class SlimFirst(OtherStep):
    """Train the slim network alone; behind the phase the dense network goes on from the function that it has learned.

    While the phase holds, `training_step` runs on the kept channels alone, which costs what a slim network costs. The
    weights that lead from channels of the reset hypothesis to kept ones are set to zero, so that the dense network
    computes what the slim one does; they are what it begins to learn when the phase is over, together with the other
    reset weights, which stay as they were drawn but for the optimizer's weight decay. Where channels are mixed outside
    of weights (layer norms, attention whose heads are cut) the function changes when the width does.

    Needs a structured split such as `kels`. A network that takes its input shapes from the first batch trains that
    batch in full width; `example_input` avoids it.

    Args:
        end: Where in a generation it ends, as a share of the generation's epochs in (0, 1].
        first_generation: As for every phase.

    Raises:
        ValueError: If an argument is out of range, or (from the callback) the split keeps no whole channels.

    Source:
        Growing without changing the function: "Net2Net: Accelerating Learning via Knowledge Transfer" (ICLR 2016).

    Example:
        >>> SlimFirst(end=0.7).holds(generation=1, epoch=6, horizon=10)
        True
    """

    name: ClassVar[str] = "slim-first"
    forgets: ClassVar[bool] = True

    def __init__(self, end: float = 0.7, first_generation: int = 1) -> None:
        super().__init__(0.0, end, first_generation)

    def step(self, model: nn.Module, structure: Structure) -> Callable[..., Any]:
        """The slim network's step."""
        return SlimWithin(model, structure, "training_step")

    def enter(self, scene: Scene) -> None:
        """Cut the kept channels off from the others, and train them alone."""
        if scene.mask is not None:
            for weight, where in _from_reset_to_fit(scene):
                zero(weight, where)
        super().enter(scene)

    def leave(self, scene: Scene) -> None:
        """Train in full width again; what was cut off begins without an optimizer's state."""
        super().leave(scene)
        for weight, where in _from_reset_to_fit(scene):
            scene.forget(weight, where)


def _from_reset_to_fit(scene: Scene) -> list[tuple[nn.Parameter, Tensor]]:
    """Weights, and which of their entries lead from a channel that is not kept to one that is."""
    structure = structure_of(scene)
    found = []
    for unit in units(scene.model):
        for local, weight in unit.weights.items():
            cut = structure.cuts.get(unit.canonical(local))
            if cut is None:
                continue
            sink = filters_dim(unit.module)
            source = 1 - sink  # the rows of an embedding are no channels, and never cut
            if cut.axes[source] < 0:
                continue
            where = torch.ones(cut.shape, dtype=torch.bool, device="cpu")
            for dim, wanted in ((source, False), (sink, True)):
                if cut.axes[dim] >= 0:
                    shape = [-1 if at == dim else 1 for at in range(len(cut.shape))]
                    where &= (structure.axes[cut.axes[dim]].member == wanted).cpu().view(shape)
            found.append((weight, where.to(weight.device)))
    return found
