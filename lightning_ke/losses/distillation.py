"""Distillation: the network also learns from one that is trained already."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from lightning_ke.losses.base import Inputs, Loss, ask, check_share, check_temperature, frozen, run, softened_divergence


class Distillation(Loss):
    """A criterion, and the divergence from a trained network that sees the same inputs.

    The teacher is a frozen copy and no part of the module: no optimizer holds it, no mask covers it, nothing redraws
    it, and no checkpoint holds it. It takes the same inputs and has as many outputs as the network; it may be larger.

    Args:
        teacher: The trained network.
        weight: Share of the teacher in the loss, in [0, 1]: 1 learns from the teacher alone.
        temperature: What scores are divided by before they are compared.
        criterion: From scores and labels to a scalar; None for the cross-entropy.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Hinton, Vinyals, Dean: "Distilling the Knowledge in a Neural Network" (2015), with its factor of the squared
        temperature.

    Example:
        >>> import torch
        >>> network = nn.Linear(5, 2)
        >>> loss = Distillation(network, weight=1.0)
        >>> round(loss(network, torch.randn(4, 5), torch.tensor([0, 1, 0, 1])).item(), 6)  # it agrees with its teacher
        0.0
    """

    compares_classes: ClassVar[bool] = True

    def __init__(
        self,
        teacher: nn.Module,
        weight: float = 0.9,
        temperature: float = 4.0,
        criterion: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.weight = check_share("weight", weight)
        self.temperature = check_temperature(temperature)
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        # In a tuple, so that torch does not take it for a part of the module.
        self._teacher = (frozen(teacher),)

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss of a batch."""
        scores = run(network, inputs)
        taught = ask(self._teacher[0], inputs, targets.device)
        divergence = softened_divergence(scores, taught, self.temperature)
        loss: Tensor = (1 - self.weight) * self.criterion(scores, targets) + self.weight * divergence
        return loss
