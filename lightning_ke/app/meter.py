"""What a training has cost: the operations of its steps, whatever they run, and the time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.data import extract_batch_size
from torch.utils.flop_counter import FlopCounterMode

from lightning_ke.app.run_folder import RunFolder


class Meter(Callback):
    """Counts the operations of the training steps over all parts of a run, and keeps its time.

    They are those of convolutions and matrix products, forward and backward, of whatever a step runs: a slim network
    alone, smaller images, a teacher. The first two batches of every epoch are counted as they are run (the first one
    may be unlike the others, because it shows the network's shapes), all others by their number of examples.

    Args:
        folder: Whose books are kept.

    Attributes:
        operations: Operations so far, on all devices.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.operations = 0.0
        self._folder = folder
        self._each = 0.0  # operations of an example
        self._counter: FlopCounterMode | None = None
        self._counting = ExitStack()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to count what the batch costs."""
        if batch_idx < 2 or not self._each:
            self._counter = self._counting.enter_context(FlopCounterMode(display=False))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Enter what the batch has cost."""
        examples = extract_batch_size(batch)
        if self._counter is not None:
            counted = self._counter.get_total_flops()
            self._stop()
            self._each = counted / examples
        self.operations += self._each * examples * trainer.world_size

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the time."""
        if trainer.is_global_zero:
            self._folder.tick()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop counting: what comes next is no training step."""
        self._stop()

    def state_dict(self) -> dict[str, Any]:
        """The operations so far."""
        return {"operations": self.operations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting.

        Args:
            state_dict: What `state_dict` returned.
        """
        self.operations = float(state_dict["operations"])

    def _stop(self) -> None:
        self._counting.close()
        self._counter = None
