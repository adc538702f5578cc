"""Class-wise self-knowledge distillation: two examples of one class shall be judged alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_ke.arguments import as_number
from lightning_ke.losses.base import Inputs, Loss, check_temperature, softened_divergence


class ClassWiseDistillation(Loss):
    """CS-KD: cross-entropy, and the divergence from what the network says of another example of the same class.

    A batch holds N examples and behind them N partners, the n-th of the class of the n-th example, as
    `PairBatchSampler` arranges. The partners are run without a gradient.

    Args:
        temperature: What the scores are divided by before they are compared.
        weight: Factor of the divergence (lambda); 3 for fine-grained sets, 1 for CIFAR-100 and Tiny-ImageNet.
        criterion: From scores and labels to a scalar; None for the cross-entropy.

    Raises:
        ValueError: If an argument is out of range, or a batch holds no pairs.

    Source:
        "Regularizing Class-wise Predictions via Self-knowledge Distillation" (CVPR 2020).

    Example:
        >>> loss = ClassWiseDistillation(temperature=4, weight=3)
        >>> images, labels = torch.randn(4, 5), torch.tensor([0, 1, 0, 1])
        >>> loss(nn.Linear(5, 2), images, labels).shape
        torch.Size([])
    """

    needs_pairs: ClassVar[bool] = True
    compares_classes: ClassVar[bool] = True

    def __init__(self, temperature: float = 4.0, weight: float = 3.0, criterion: nn.Module | None = None) -> None:
        super().__init__()
        self.temperature = check_temperature(temperature)
        if not 0 <= as_number(weight) < math.inf:
            raise ValueError(
                f"Expected argument `weight` to be a number of at least 0, but got {weight!r}. The paper uses 1 or 3."
            )
        self.weight = weight
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss of a batch of pairs.

        Args:
            network: From inputs to scores of shape (N, classes).
            inputs: Of shape (2 N, ...): examples, then partners.
            targets: Labels of shape (2 N,).
        """
        if not isinstance(inputs, Tensor):
            raise ValueError(
                f"Expected a batch of one input for class-wise distillation, but got {len(inputs)} of them. Graphs and "
                "other structured inputs cannot be cut into pairs; use another loss."
            )
        half = len(targets) // 2
        if len(targets) % 2 or not torch.equal(targets[:half], targets[half:]):
            raise ValueError(
                "Expected a training batch to hold as many partners behind its examples, class by class, but its "
                "labels are no pairs. Give the loader `batch_sampler=PairBatchSampler(...)`."
            )
        scores = network(inputs[:half])
        with torch.no_grad():
            partners = network(inputs[half:])
        loss: Tensor = self.criterion(scores, targets[:half])
        return loss + self.weight * softened_divergence(scores, partners, self.temperature)
