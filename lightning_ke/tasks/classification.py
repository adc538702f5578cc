"""Classification: any backbone, any loss, accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassCalibrationError

from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler
from lightning_ke.tasks.scored import ScoredTask, refuse_value_loss

Batch = tuple[Tensor, Tensor]


class Classification(ScoredTask):
    """Trains a backbone to tell classes apart; logs `train_loss`, `val_loss`, `val_acc`, `test_acc` (and top 5).

    Args:
        backbone: The network: images of shape (N, C, H, W) to scores of shape (N, `num_classes`).
        num_classes: Number of classes.
        optimizer: From parameters to their optimizer; None for SGD with the paper's settings.
        scheduler: From the optimizer and a horizon to its schedule; the horizon is the Trainer's length in units of
            `interval`, and one generation's length under the `KnowledgeEvolution` callback. None for a constant rate.
        interval: Whether the schedule moves on every epoch or every step.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.
        loss: A criterion of scores and labels, or a `Loss`; None for the cross-entropy with label smoothing 0.1, as
            in the paper.
        auc: Whether the area under the ROC curve is logged, too: one class against the rest, the mean of all classes.
            A class that no example of the part has counts as 0.
        calibration: Whether the expected calibration error is logged, too (`val_ece`, `test_ece`; 15 bins of equal
            width, the absolute distance of confidence and accuracy). It says nothing about how good the weights are on
            its own, and is none of the `monitors`.

    Raises:
        ValueError: If there is a single class, the loss is one of values or its label smoothing is out of range, or
            (when training starts) the Trainer's length is unknown and a schedule needs it.

    Example:
        >>> import torch
        >>> task = Classification(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), num_classes=3)
        >>> task(torch.zeros(5, 3, 2, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        config: Mapping[str, Any] | None = None,
        loss: nn.Module | None = None,
        auc: bool = False,
        calibration: bool = False,
    ) -> None:
        if num_classes < 2:
            raise ValueError(
                f"Expected argument `num_classes` to be at least 2, but got {num_classes}: there is nothing to tell "
                "apart. A folder of images needs one folder for each class."
            )
        refuse_value_loss(loss, "one class for each example")
        loss = nn.CrossEntropyLoss(label_smoothing=0.1) if loss is None else loss
        smoothing = getattr(loss, "label_smoothing", 0.0)  # torch would refuse it in the first step
        if not 0 <= smoothing < 1:
            raise ValueError(
                f"Expected argument `label_smoothing` to be in [0, 1), but got {smoothing}. The paper uses 0.1."
            )
        top = {"acc": 1, "acc5": 5} if num_classes > 5 else {"acc": 1}
        metrics: dict[str, Metric] = {
            name: MulticlassAccuracy(num_classes, top_k=k, average="micro") for name, k in top.items()
        }
        if auc:
            metrics["auc"] = MulticlassAUROC(num_classes, average="macro")
        if calibration:
            metrics["ece"] = MulticlassCalibrationError(num_classes, n_bins=15, norm="l1")
        super().__init__(backbone, loss, metrics, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("num_classes", "interval", "config", "auc", "calibration")

    @property
    def monitors(self) -> tuple[str, ...]:
        """Names of the validation metrics by which weights may be chosen."""
        return tuple(name for name in super().monitors if name != "val_ece")

    def compare(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, labels and plain cross-entropy of a batch."""
        images, labels = batch
        scores = self(images)
        return scores, labels, F.cross_entropy(scores, labels)
