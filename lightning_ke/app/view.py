"""What a terminal shows while a run is at work: one bar for the whole run, and a line for each generation."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from lightning_ke.callback import KnowledgeEvolution

log = logging.getLogger(__name__)


class RunView(Callback):
    """Shows where the run is: generation, epoch in it, scores of the last generation, time left for the whole run.

    In a terminal that is a bar below all other lines. A line for each generation says the same wherever the output
    goes, and stays in the log.

    Args:
        evolution: The callback that knows the generations.
        monitor: The metric to show.
        bar: Whether a bar is wanted; there is none where the output is no terminal.
    """

    def __init__(self, evolution: KnowledgeEvolution, monitor: str, *, bar: bool = True) -> None:
        self._evolution = evolution
        self._monitor = monitor
        self._wanted = bar
        self._bar: tqdm[Any] | None = None
        self._shown = 0
        self._done = 0  # batches of this process
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, at the batch where the run goes on."""
        self._shown, self._done, self._began = len(self._evolution.history), 0, time.monotonic()
        if self._wanted and trainer.is_global_zero and sys.stderr.isatty():
            total = self._batches(trainer)
            self._bar = tqdm(
                file=sys.stderr,
                total=total,
                initial=total - self._left(trainer) if total is not None else 0,
                smoothing=0,  # the speed of the whole run: validations come in jumps
                dynamic_ncols=True,
                leave=False,
                bar_format="{desc}{bar}| {percentage:3.0f} %, {remaining} left{postfix}"
                if total is not None
                else "{desc}{n} batches, {elapsed}{postfix}",
            )
        self._describe(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the epoch."""
        self._describe(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Move the bar."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what a generation brought that has just been closed."""
        for record in self._evolution.history[self._shown :]:
            seconds = self._time_left(trainer)
            left = f"; {_duration(seconds)} left" if seconds else ""
            if trainer.is_global_zero:
                log.info("Generation %s: %s%s", self._of(record["generation"]), self._scores(record), left)
        self._shown = len(self._evolution.history)
        self._describe(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar: the next line is about what went wrong."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _describe(self, trainer: Trainer) -> None:
        if self._bar is None:
            return
        history = self._evolution.history
        epoch = trainer.current_epoch - (history[-1]["last_epoch"] + 1 if history else 0) + 1
        self._bar.set_description_str(
            f"generation {self._of(self._evolution.generation)}, epoch {epoch}{self._length()} ", refresh=False
        )
        self._bar.set_postfix_str(f"last: {self._scores(history[-1])}" if history else "", refresh=True)

    def _of(self, generation: int) -> str:
        epochs = self._evolution.epochs_per_generation
        count = self._evolution.generations if epochs is None or isinstance(epochs, int) else len(epochs)
        return f"{generation}" if count is None else f"{generation} of {count}"

    def _length(self) -> str:
        epochs = self._evolution.epochs_per_generation
        if epochs is not None and not isinstance(epochs, int):
            epochs = int(epochs[self._evolution.generation - 1])  # shares of the run are 0 and not shown
        return f" of {epochs}" if epochs else ""

    def _scores(self, record: dict[str, Any]) -> str:
        scores = [
            f"{name} {record[kind][self._monitor]:.4f}"
            for kind, name in (("dense", "dense"), ("fit", "fit"))
            if self._monitor in record[kind]
        ]
        return f"{self._monitor} {', '.join(scores)}" if scores else "not scored"

    def _batches(self, trainer: Trainer) -> int | None:
        """Batches of the whole run, if that is known before."""
        epochs, batches = trainer.max_epochs, trainer.num_training_batches
        if epochs is None or epochs < 0 or batches == float("inf"):
            return None
        return int(epochs * batches)

    def _left(self, trainer: Trainer) -> int:
        total = self._batches(trainer)
        assert total is not None
        return max(total - int(trainer.current_epoch * trainer.num_training_batches), 0)

    def _time_left(self, trainer: Trainer) -> float | None:
        if self._batches(trainer) is None or not self._done:
            return None
        left = self._left(trainer) - int(trainer.num_training_batches)  # the epoch that ends is still counted
        return (time.monotonic() - self._began) / self._done * max(left, 0)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{whole % 60:02d} min"
