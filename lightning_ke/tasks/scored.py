"""Tasks whose metrics all compare what the network puts out with what was wanted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics import Metric

from lightning_ke.tasks.base import MakeOptimizer, MakeScheduler, Task


class ScoredTask(Task):
    """Logs a plain loss and metrics of every batch; subclasses say of what (`compare`).

    Args:
        backbone: As for every task.
        loss: As for every task.
        metrics: torchmetrics objects by name, the one that usually chooses the weights first; each is updated with the
            outputs and targets of `compare`.
        optimizer: As for every task.
        scheduler: As for every task.
        interval: As for every task.
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: nn.Module,
        metrics: Mapping[str, Metric],
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(backbone, loss, optimizer, scheduler, interval)
        self._names = tuple(metrics)
        # Validation and testing must not mix.
        self.metrics = nn.ModuleDict(
            {f"{part}_{name}": metrics[name].clone() for part in ("val", "test") for name in self._names}
        )

    @property
    def monitors(self) -> tuple[str, ...]:
        """What is logged in every validation: the metrics, then the loss."""
        return (*(f"val_{name}" for name in self._names), "val_loss")

    @property
    def directions(self) -> dict[str, str]:
        """Whether more ("max") or less ("min") of a metric is better, as far as torchmetrics says it."""
        higher = {f"val_{name}": getattr(self.metrics[f"val_{name}"], "higher_is_better", None) for name in self._names}
        known = {name: "max" if better else "min" for name, better in higher.items() if better is not None}
        return {**known, "val_loss": "min"}

    @abstractmethod
    def compare(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Run the network on a batch.

        Args:
            batch: A batch.

        Returns:
            What the metrics compare, outputs and targets, and the plain loss, whatever the network is trained by.
        """

    def evaluate(self, part: str, batch: Any) -> None:
        """Log the plain loss and all metrics of a batch; the first metric is shown in the progress bar.

        Args:
            part: ``"val"`` or ``"test"``.
            batch: A batch.
        """
        outputs, targets, loss = self.compare(batch)
        # Metrics are reduced over all ranks by themselves; a number is not.
        self.log(f"{part}_loss", loss, batch_size=len(targets), sync_dist=True)
        for number, name in enumerate(self._names):
            metric = self.metrics[f"{part}_{name}"]
            assert isinstance(metric, Metric)
            metric.update(outputs, targets)
            self.log(
                f"{part}_{name}", metric, prog_bar=number == 0, on_step=False, on_epoch=True, batch_size=len(targets)
            )


# Torch's losses that compare each output with a value of its own.
_OF_VALUES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss)


def refuse_value_loss(loss: nn.Module | None, targets: str) -> None:
    """Refuse a loss that wants a value for each output where the targets are classes.

    It would fail at the first batch, or, where there are as many examples as classes, train something else.

    Args:
        loss: The criterion, or a loss that holds one.
        targets: What the targets are.

    Raises:
        ValueError: If it, or its criterion, is one of values.

    Example:
        >>> refuse_value_loss(nn.MSELoss(), "one class for each example")
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `loss` to compare one class for each example, but MSELoss compares a value for \
each output. Give nn.CrossEntropyLoss() (loss=cross_entropy).
    """
    criterion = getattr(loss, "criterion", loss)
    if isinstance(criterion, _OF_VALUES):
        raise ValueError(
            f"Expected argument `loss` to compare {targets}, but {type(criterion).__name__} compares a value for each "
            "output. Give nn.CrossEntropyLoss() (loss=cross_entropy)."
        )


def refuse_class_loss(loss: nn.Module | None, targets: str, instead: str) -> None:
    """Refuse a loss that wants one class for each example where the targets are none; it would train something else.

    Args:
        loss: The criterion, or a loss that holds one.
        targets: What the targets are.
        instead: What to give.

    Raises:
        ValueError: If it, or its criterion, is one of classes.

    Example:
        >>> refuse_class_loss(nn.CrossEntropyLoss(), "values", "nn.MSELoss()")
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `loss` to compare values, but CrossEntropyLoss compares one class for each \
example. Give nn.MSELoss().
    """
    criterion = getattr(loss, "criterion", loss)
    if isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)):
        raise ValueError(
            f"Expected argument `loss` to compare {targets}, but {type(criterion).__name__} compares one class for "
            f"each example. Give {instead}."
        )
    if getattr(loss, "compares_classes", False):  # of a single value, say, the softmax is 1 and the divergence 0
        raise ValueError(
            f"Expected argument `loss` to compare {targets}, but {type(loss).__name__} compares probabilities of "
            f"classes. Give {instead}."
        )
