"""Regression: values and headings from any input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanMetric, Metric, R2Score

from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler
from lightning_ke.tasks.scored import ScoredTask, refuse_class_loss


class Regression(ScoredTask):
    """Trains a backbone to predict values; logs `val_loss` (squared error), `val_r2`, `val_mae`, the same of test.

    With several values for each example all three are means over them.

    Args:
        backbone: The network: inputs to values of shape (N, `num_classes`).
        num_classes: Number of values for each example.
        loss: A criterion of predicted and true values, both of shape (N, `num_classes`) and standardised; None for the
            mean squared error.
        mean: What the true values are reduced by before they are learnt, in their own unit.
        std: What they are then divided by, in their own unit; metrics and `predict_values` are in that unit again.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.

    Raises:
        ValueError: If `std` is not greater than 0, or the loss is one of classes.

    Example:
        >>> task = Regression(nn.Linear(3, 1), mean=20.0, std=5.0)
        >>> task.predict_values(torch.zeros(4, 3)).shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 1,
        loss: nn.Module | None = None,
        mean: float = 0.0,
        std: float = 1.0,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if not std > 0:
            raise ValueError(f"Expected argument `std` to be greater than 0, but got {std}. Leave it out for 1.")
        refuse_class_loss(loss, "values", "nn.MSELoss() or nn.L1Loss() (loss=mse, loss=l1)")
        metrics: dict[str, Metric] = {"r2": _CentredR2(mean), "mae": MeanAbsoluteError()}
        loss = nn.MSELoss() if loss is None else loss
        super().__init__(backbone, loss, metrics, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("num_classes", "mean", "std", "interval", "config")
        self.mean, self.std = mean, std

    def predict_values(self, inputs: Tensor) -> Tensor:
        """Predict, in the values' own unit.

        Args:
            inputs: What the network takes.

        Returns:
            Values of shape (N, `num_classes`).
        """
        values: Tensor = self(inputs) * self.std + self.mean
        return values

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch, its targets standardised."""
        inputs, values = batch
        standardised = (values.float().view(len(values), -1) - self.mean) / self.std
        return super().training_step((inputs, standardised), batch_idx)

    def compare(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Values in their own unit, and the squared error, of a batch."""
        inputs, values = batch
        # One column for each value: taken together, R2 would praise whoever tells the columns' means apart.
        predicted, values = (each.reshape(len(values), -1) for each in (self.predict_values(inputs), values.float()))
        return predicted, values, F.mse_loss(predicted, values)


class _CentredR2(R2Score):
    """R2 of values without their mean: the same number, but squares that single precision can tell apart."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds - self.mean, target - self.mean)


class Heading(ScoredTask):
    """Trains a backbone to predict an angle by its sine and cosine, so that 359 and 1 degree are neighbours.

    Logs `val_mae` (mean absolute error on the circle, in degrees, at most 180; 90 is chance), `val_cos` (mean cosine of
    the error: 1 is perfect, 0 is chance), `val_loss`, and the same of test.

    Args:
        backbone: The network: inputs to (sine, cosine) of shape (N, 2), which need not lie on the unit circle.
        loss: A criterion of predicted and true (sine, cosine); None for the mean squared error.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
        config: How the backbone was built, in plain values, to be kept in the checkpoint.

    Raises:
        ValueError: If the loss is one of classes.

    Example:
        >>> task = Heading(nn.Linear(3, 2))
        >>> task.predict_angle(torch.zeros(4, 3)).shape
        torch.Size([4])
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: nn.Module | None = None,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        refuse_class_loss(loss, "sines and cosines", "nn.MSELoss() or nn.L1Loss() (loss=mse, loss=l1)")
        metrics = {"mae": _DegreesApart(), "cos": _CosineOfError()}
        super().__init__(backbone, nn.MSELoss() if loss is None else loss, metrics, optimizer, scheduler, interval)
        config = dict(config) if config is not None else None
        self.save_hyperparameters("interval", "config")

    @classmethod
    def outputs(cls, num_classes: int, **options: Any) -> int:
        """Sine and cosine."""
        return 2

    @property
    def directions(self) -> dict[str, str]:
        """Whether more ("max") or less ("min") of a metric is better."""
        return {**super().directions, "val_mae": "min", "val_cos": "max"}

    def predict_angle(self, inputs: Tensor) -> Tensor:
        """Predict the angle.

        Args:
            inputs: What the network takes.

        Returns:
            Angles of shape (N,), in radians from -pi to pi.
        """
        outputs = self(inputs)
        return torch.atan2(outputs[:, 0], outputs[:, 1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch of angles in radians."""
        inputs, angles = batch
        return super().training_step((inputs, _on_circle(angles)), batch_idx)

    def compare(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Angles in radians, and the squared error of sine and cosine, of a batch."""
        inputs, angles = batch
        outputs = self(inputs)
        return torch.atan2(outputs[:, 0], outputs[:, 1]), angles.flatten(), F.mse_loss(outputs, _on_circle(angles))


class _DegreesApart(MeanMetric):
    """Mean absolute error on the circle, in degrees."""

    def update(self, one: Tensor, other: Tensor) -> None:  # type: ignore[override]  # it compares two, as R2Score does
        super().update(angle_between(one, other).rad2deg())


class _CosineOfError(MeanMetric):
    """Mean cosine of the error."""

    def update(self, one: Tensor, other: Tensor) -> None:  # type: ignore[override]  # it compares two, as R2Score does
        super().update(angle_between(one, other).cos())


def angle_between(one: Tensor, other: Tensor) -> Tensor:
    """The smaller angle between two directions.

    Args:
        one: Angles of any shape, in radians, any number of turns.
        other: Angles of the same shape.

    Returns:
        Angles from 0 to pi.

    Example:
        >>> angle_between(torch.tensor([359.0]).deg2rad(), torch.tensor([1.0]).deg2rad()).rad2deg().round()
        tensor([2.])
    """
    return ((one - other + math.pi) % (2 * math.pi) - math.pi).abs()


def _on_circle(angles: Tensor) -> Tensor:
    angles = angles.float().flatten()
    return torch.stack([angles.sin(), angles.cos()], dim=1)
