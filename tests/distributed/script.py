"""A user's program, started once: python -m tests.distributed.script STRATEGY SIZE FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import data, make_trainer
from tests.distributed import programs


class Tell(Callback):
    """Writes down what this rank has seen."""

    def __init__(self, folder: Path, snapshots: programs.Snapshots, callback: KnowledgeEvolution) -> None:
        self.folder, self.snapshots, self.callback = folder, snapshots, callback

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.callback.mask is not None
        history = [{k: v for k, v in record.items() if k != "seconds"} for record in self.callback.history]
        state = {
            "mask": {name: member.clone() for name, member in self.callback.mask.items()},
            "after redraw": self.snapshots.after_redraw,
            "history": history,
        }
        torch.save(state, self.folder / f"rank-{trainer.global_rank}.pt")


def main(strategy: str, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    seed_everything(0)
    callback, snapshots = KnowledgeEvolution(epochs_per_generation=1, seed=0), programs.Snapshots()
    chosen: Any = strategy if strategy.startswith("ddp") else programs.strategy(strategy, size)
    trainer = make_trainer(
        folder,
        devices=size,
        strategy=chosen,
        max_epochs=3,
        callbacks=[callback, snapshots, Tell(folder, snapshots, callback)],
    )
    module = programs.Plain() if strategy.startswith("ddp") else programs.Sharded()
    loaders = DataLoader(data(24), 8 // size, shuffle=True), DataLoader(data(16, 1), 8 // size)
    trainer.fit(module, *loaders)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
