"""Masks of untrained weights that already solve the task, for trainings that begin from the same weights."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from omegaconf import OmegaConf

from lightning_ke import find_supermask
from lightning_ke.app.build import build
from lightning_ke.app.experiment import build_task

# Of 1 and 10 the better one on validation, at seed 0.
RATE = 10.0


def search(run: Path, out: Path) -> Path:
    """Search for as many epochs as a run of `ke-train` had, in the weights that it began with.

    Args:
        run: The folder of a run in one generation; its configuration says network, data and seed.
        out: Where the mask is written.

    Returns:
        That file; its names are those of a run of the same task.
    """
    config = OmegaConf.load(run / "config.yaml")
    seed_everything(config.seed, workers=True, verbose=False)
    data = build(config.datamodule)
    data.prepare_data()
    task = build_task(config, data)
    data.setup("fit")
    mask = find_supermask(task, data.train_dataloader(), epochs=config.generations.epochs, lr=RATE, seed=config.seed)
    torch.save(mask.state_dict(), out)
    return out
