"""In-place distillation: the slim network within a dense one learns from what that one says about the same batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from lightning_ke.losses.base import Inputs, Loss, check_share, check_temperature, run, softened_divergence
from lightning_ke.slim.within import runs_slim


class InPlaceDistillation(Loss):
    """A criterion for the dense network; for the slim one, divergence from the dense network's predictions.

    For generations with phase `Slimmable`, which uses each batch in both widths; outside of the phase it is the
    criterion alone. The tasks refuse it where there is no such phase.

    Args:
        weight: Share of the dense network in the slim network's loss, in [0, 1]: 1 learns from it alone.
        temperature: What scores are divided by before they are compared.
        criterion: From scores and labels to a scalar; None for the cross-entropy.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        "Universally Slimmable Networks and Improved Training Techniques" (ICCV 2019), section 3.3, with two widths.

    Example:
        >>> import torch
        >>> loss = InPlaceDistillation()
        >>> round(loss(nn.Identity(), torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])).item(), 4)  # the criterion
        0.6931
    """

    needs_phase: ClassVar[str] = "slimmable"
    compares_classes: ClassVar[bool] = True

    def __init__(self, weight: float = 1.0, temperature: float = 1.0, criterion: nn.Module | None = None) -> None:
        super().__init__()
        self.weight = check_share("weight", weight)
        self.temperature = check_temperature(temperature)
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self._dense: tuple[Inputs, Tensor] | None = None  # what the dense network has said last, and about what

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Raises:
            ValueError: If the slim network runs on a batch that the dense one has not seen just before.
        """
        scores = run(network, inputs)
        loss: Tensor = self.criterion(scores, targets)
        if not runs_slim():
            self._dense = inputs, scores.detach()
            return loss
        seen, self._dense = self._dense, None
        if seen is None or seen[0] is not inputs:
            raise ValueError(
                "Expected the dense network to see each batch before the slim one learns from it, but it did not. "
                "InPlaceDistillation goes with phase 'slimmable' and inputs that `training_step` hands on as they are; "
                "choose another loss."
            )
        divergence = softened_divergence(scores, seen[1], self.temperature)
        return (1 - self.weight) * loss + self.weight * divergence
