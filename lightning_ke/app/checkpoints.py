"""The checkpoints of a run: the weights that validation chooses, and all that is needed to continue."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_ke.app.files import replacing
from lightning_ke.app.loggers import aside_of, count_rows, take_rows_back
from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.history import write_history_csv


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints that are there whole or not at all, on whatever disk (Lightning's pass through another)."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Its content.
            path: The file.
            storage_options: Not used.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)  # into memory first: torch has no words for a disk that is full
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of a run whose folder may have been moved when the run goes on.

    Args:
        folder: Where it is written.
        name: Its name, without the ending.
        monitor: The metric that chooses; None to save every time.
        mode: "max" or "min".
        **options: Further arguments of ModelCheckpoint.
    """

    def __init__(self, folder: Path, name: str, monitor: str | None = None, mode: str = "min", **options: Any) -> None:
        super().__init__(
            folder,
            filename=name,
            monitor=monitor,
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
            **options,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was known of the best weights.

        Args:
            state_dict: What `state_dict` returned.
        """

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: here(state_dict[name]) for name in state_dict if name.endswith("_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


class LastCheckpoint(RunCheckpoint):
    """Saves all that is needed to continue at the end of every epoch, after every other callback.

    Args:
        folder: Where it is written.
        evolution: The callback of the run, whose history goes on in its file.
    """

    def __init__(self, folder: Path, evolution: KnowledgeEvolution) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True)
        self._evolution = evolution
        self._history = folder.parent / "ke_history.csv"  # where it is if nothing is logged
        self._rows: list[int] = []
        self._pending: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the history of an earlier part of this run aside: the callback overwrites none that it finds."""
        super().setup(trainer, pl_module, stage)
        self._history = Path(trainer.log_dir or trainer.default_root_dir) / "ke_history.csv"
        if stage == "fit" and trainer.is_global_zero and self._history.exists():
            self._history.replace(aside_of(self._history))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back the history and the logged rows that the checkpoint knows of, and no others."""
        if not trainer.is_global_zero:
            return
        for index, logger in enumerate(trainer.loggers):
            take_rows_back(logger, self._rows[index] if index < len(self._rows) else 0, self._pending)
        if self._evolution.history:
            write_history_csv(self._evolution.history, self._history)
        aside_of(self._history).unlink(missing_ok=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the history back where it was if the run could not go on."""
        super().on_exception(trainer, pl_module, exception)
        if trainer.is_global_zero and aside_of(self._history).exists() and not self._history.exists():
            aside_of(self._history).replace(self._history)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how far the logs have come, and save."""
        if trainer.is_global_zero:
            self._rows = count_rows(trainer.loggers)
        # Lightning logs the epoch's own metrics when the checkpoint has been written.
        assert trainer._results is not None
        metrics = trainer._results.metrics(on_step=False)["log"]
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        self._pending = {name: float(value) for name, value in metrics.items()}
        if self._pending:
            self._pending |= {"epoch": trainer.current_epoch, "step": step}
        super().on_train_epoch_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue."""
        return {**super().state_dict(), "rows": list(self._rows), "pending": dict(self._pending)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue.

        Args:
            state_dict: What `state_dict` returned.
        """
        super().load_state_dict(state_dict)
        self._rows, self._pending = list(state_dict["rows"]), dict(state_dict["pending"])
