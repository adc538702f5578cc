"""Multi-label classification: any number of findings for each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MultilabelAccuracy, MultilabelAUROC

from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler
from lightning_ke.tasks.scored import ScoredTask, refuse_class_loss


class MultiLabel(ScoredTask):
    """Trains a backbone to say of each label whether it applies; logs loss, `val_auc`, `val_acc` and the same of test.

    Both scores are means over the labels; accuracy is that at a probability of 0.5. The AUC of a label that none or all
    of the examples have counts as 0.

    Args:
        backbone: The network: images to scores (logits) of shape (N, `num_classes`).
        num_classes: Number of labels.
        loss: A criterion of scores and float targets; None for the binary cross-entropy.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.

    Raises:
        ValueError: If the loss is one of classes.

    Example:
        >>> import torch
        >>> MultiLabel(nn.Linear(3, 14), num_classes=14)(torch.zeros(2, 3)).shape
        torch.Size([2, 14])
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        loss: nn.Module | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_class_loss(loss, "several labels", "nn.BCEWithLogitsLoss() (loss=binary_cross_entropy)")
        metrics: dict[str, Metric] = {
            "auc": MultilabelAUROC(num_classes, average="macro"),
            "acc": MultilabelAccuracy(num_classes, average="macro"),
        }
        loss = nn.BCEWithLogitsLoss() if loss is None else loss
        super().__init__(backbone, loss, metrics, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("num_classes", "interval", "config")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch of images and 0/1 labels."""
        images, labels = batch
        return super().training_step((images, labels.float()), batch_idx)

    def compare(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, labels and binary cross-entropy of a batch."""
        images, labels = batch
        scores = self(images)
        return scores.sigmoid(), labels.int(), F.binary_cross_entropy_with_logits(scores, labels.float())
