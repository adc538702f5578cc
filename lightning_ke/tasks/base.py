"""What all tasks share: a network, a loss, an optimizer and a schedule that is told how long it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Literal

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.losses import Loss, get_loss

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer, int], LRScheduler]

_REMEMBERED = "lightning_ke_loss"  # in a checkpoint: what the loss remembers beyond its parameters


class Task(LightningModule, ABC):
    """Trains a network on batches of inputs and targets; subclasses say how it is scored (`evaluate`).

    Args:
        backbone: The network.
        loss: A criterion of outputs and targets, or a `Loss` that runs the network itself.
        optimizer: From parameters to their optimizer; None for SGD with the paper's settings.
        scheduler: From the optimizer and a horizon to its schedule; the horizon is the Trainer's length in units of
            `interval`, and one generation's length under the `KnowledgeEvolution` callback. None for a constant rate.
        interval: Whether the schedule moves on every epoch or every step.
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: nn.Module,
        optimizer: MakeOptimizer | None = None,
        scheduler: MakeScheduler | None = None,
        interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss: Loss = get_loss(loss)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.interval = interval
        self._shown = 0  # the step after which the loss has last seen the network

    @classmethod
    def outputs(cls, num_classes: int, **options: Any) -> int:
        """How many values the network of such a task puts out for each example.

        Args:
            num_classes: What the data module says (classes, values, letters).
            **options: The options with which the task will be built.
        """
        return num_classes

    def forward(self, *inputs: Tensor) -> Tensor:
        """Run the network.

        Args:
            *inputs: What the network takes.
        """
        outputs: Tensor = self.backbone(*inputs)
        return outputs

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        inputs, targets = batch
        # Past the hooks of the loss, which is no part of the network: who listens for the network must hear that.
        loss: Tensor = self.loss.forward(self, inputs, targets)
        count = len(targets)
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=count, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score the validation examples."""
        self.evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Score the test examples."""
        self.evaluate("test", batch)

    @property
    @abstractmethod
    def monitors(self) -> tuple[str, ...]:
        """What is logged in every validation, the one that usually chooses the weights first."""

    @property
    def directions(self) -> dict[str, str]:
        """Of those `monitors` of which it is known: whether more ("max") or less ("min") of it is better."""
        return {}

    @abstractmethod
    def evaluate(self, part: str, batch: Any) -> None:
        """Score a batch and log what it says, each name with the part before it.

        Args:
            part: ``"val"`` or ``"test"``.
            batch: A batch.
        """

    def setup(self, stage: str) -> None:
        """Refuse a loss whose phase no generation has, and begin a new run with one that remembers nothing.

        Args:
            stage: ``"fit"``, or another one, in which there are no generations.

        Raises:
            ValueError: If there is no such phase.
        """
        phase = self.loss.needs_phase
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]  # set where Lightning does not declare it
        evolutions = [callback for callback in callbacks if isinstance(callback, KnowledgeEvolution)]
        if stage == "fit" and phase and not any(evolution.has_phase(phase) for evolution in evolutions):
            raise ValueError(
                f"Expected generations with phase {phase!r} for {type(self.loss).__name__}, but they have none: it "
                f"would be its criterion alone. Add the phase (generations={phase}), or choose another loss."
            )
        if stage == "fit" and self.trainer.fit_loop.epoch_progress.current.completed == 0:  # else the run goes on
            self.loss.recall({}, self.backbone)  # before a checkpoint, if there is one, is read

    # What a loss may want to see ------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Count steps from here on."""
        self._shown = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show the loss the network after a step."""
        self._show()

    def on_generation_end(self, generation: int) -> None:
        """Show the loss what a generation has trained, before a part of it is redrawn.

        Args:
            generation: Number of the generation that has ended.
        """
        self.loss.on_generation_end(self.backbone)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the loss remembers."""
        if self.trainer.training:  # a callback that saves after a step comes before `on_train_batch_end`
            self._show()
        if remembered := self.loss.remembered():
            checkpoint[_REMEMBERED] = remembered

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the loss back what it remembered."""
        self.loss.recall(checkpoint.get(_REMEMBERED, {}), self.backbone)

    def _show(self) -> None:
        """Show the loss the network, once after a step; gradients may be accumulated over several batches."""
        if self.trainer.global_step != self._shown:
            self._shown = self.trainer.global_step
            self.loss.after_step(self.backbone)

    # Optimizer and schedule -----------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule, as long as the Trainer says (under the callback: one generation)."""
        make = self.optimizer or (lambda parameters: SGD(parameters, lr=0.256, momentum=0.9, weight_decay=1e-4))
        optimizer = make(parameter for parameter in self.parameters() if parameter.requires_grad)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer, self._horizon())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}

    def _horizon(self) -> int:
        if self.interval == "step":
            horizon = self.trainer.estimated_stepping_batches
        else:
            horizon = self.trainer.max_epochs if self.trainer.max_epochs is not None else -1
        if horizon == float("inf") or horizon < 1:
            raise ValueError(
                "Expected the Trainer's length to be known, because the learning-rate schedule is built for it, but "
                f"got max_epochs={self.trainer.max_epochs}. Give `Trainer(max_epochs=...)`, or no scheduler."
            )
        return int(horizon)
