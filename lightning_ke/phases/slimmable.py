"""The slim and the dense network are trained together, on the same batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from lightning_ke.phases.other_step import OtherStep
from lightning_ke.slim.within import SlimWithin
from lightning_ke.structure import Structure


class Slimmable(OtherStep):
    """Train the dense network and, on the same parameters, its slim network: the loss is the mean of both.

    `training_step` is called twice for each batch, for the dense network first, and what it logs is the mean of both
    calls. `InPlaceDistillation` lets the slim network learn from what the dense one has just said. Running statistics
    are those of the dense network alone; the slim network's are re-estimated where it is scored and cut out
    (`fit_norm="reestimate"`), as its channels have others.

    Needs a structured split such as `kels` and automatic optimization.

    Args:
        begin: Where in a generation it begins, as a share of the generation's epochs in [0, 1).
        end: Where it ends, in (0, 1].
        first_generation: As for every phase.

    Raises:
        ValueError: If an argument is out of range, or (from the callback) the split keeps no whole channels.

    Source:
        "Slimmable Neural Networks" (ICLR 2019), with two widths; re-estimated statistics as in "Universally Slimmable
        Networks and Improved Training Techniques" (ICCV 2019).

    Example:
        >>> Slimmable(begin=0.5).holds(generation=1, epoch=5, horizon=10)
        True
    """

    name: ClassVar[str] = "slimmable"

    def __init__(self, begin: float = 2 / 3, end: float = 1.0, first_generation: int = 1) -> None:
        super().__init__(begin, end, first_generation)

    def step(self, model: nn.Module, structure: Structure) -> Callable[..., Any]:
        """Both networks' steps."""
        return _Both(model, SlimWithin(model, structure, "training_step", keep_buffers=False))


class _Both:
    """The mean loss of a network's own step and of its slim network's."""

    def __init__(self, model: nn.Module, slim: SlimWithin) -> None:
        self._dense = cast("Callable[..., Any]", model.training_step)
        self._slim = slim

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        dense = self._dense(*args, **kwargs)
        mean = (_loss(dense) + _loss(self._slim(*args, **kwargs))) / 2
        return {**dense, "loss": mean} if isinstance(dense, Mapping) else mean


def _loss(result: Any) -> Tensor:
    """The loss that a `training_step` has returned, alone or among other things."""
    loss = result.get("loss") if isinstance(result, Mapping) else result
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"Expected `training_step` to return a loss for phase {Slimmable.name!r}, but got {type(loss).__name__}. "
            "Modules that optimize by hand, or skip batches, cannot be trained in two widths at once: leave the phase "
            "out."
        )
    return loss
