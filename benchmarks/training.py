"""What every small study's training has in common: one processor, nothing written, nothing shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


def fit(
    task: LightningModule,
    data: LightningDataModule,
    epochs: int,
    callbacks: Sequence[Callback],
    validate_every: int,
    **options: Any,
) -> tuple[Trainer, float]:
    """Train, and say how long it took.

    Args:
        task: What is trained.
        data: With what.
        epochs: For how long.
        callbacks: What takes part.
        validate_every: Epochs between validations.
        **options: Further arguments of the Trainer.

    Returns:
        The Trainer, which can test, and seconds of wall clock.
    """
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=validate_every,
        callbacks=list(callbacks),
        **options,
    )
    start = time.monotonic()
    trainer.fit(task, datamodule=data)
    return trainer, round(time.monotonic() - start, 1)
