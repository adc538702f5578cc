"""Every checkpoint that Lightning writes goes on bit for bit, whatever was left to do of its epoch."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import Classifier, data, make_trainer, same, train_loader, val_loader, weights


class Diary(Callback):
    """What a run computes: the loss of every batch and the metrics of every validation."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Any, ...], Any] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.entries["loss", trainer.current_epoch, batch_idx] = float(outputs["loss"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "val" in name}
        self.entries["validation", trainer.current_epoch, trainer.global_step] = metrics

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.entries["epoch", trainer.current_epoch] = trainer.global_step


class Cropped(Dataset[Any]):
    """Images moved, turned and brightened at random, each by another library's generator."""

    def __init__(self) -> None:
        self.images = data()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image, label = self.images[index]
        image = image.roll(int(torch.randint(6, ())), dims=2)
        if random.random() < 0.5:
            image = image.flip(2)
        return image + float(np.random.rand()), label


@dataclass
class Case:
    """A kind of run, and where its checkpoints are written."""

    saver: dict[str, Any] = field(default_factory=lambda: {"every_n_train_steps": 1})
    trainer: dict[str, Any] = field(default_factory=lambda: {"max_epochs": 6})
    module: type[Classifier] = Classifier
    validation: bool = True
    resumable_loader: bool = True
    epochs_per_generation: int = 2

    workers: int = 0

    def loader(self) -> Any:
        if self.workers:
            return DataLoader(Cropped(), batch_size=8, shuffle=True, num_workers=self.workers)
        if not self.resumable_loader:
            return train_loader()
        loaders = pytest.importorskip("torchdata.stateful_dataloader")
        return loaders.StatefulDataLoader(data(), batch_size=8, shuffle=True)


@dataclass
class Outcome:
    module: Classifier
    callback: KnowledgeEvolution
    diary: Diary
    trainer: Trainer
    checkpoints: dict[int, Path]

    def differs_from(self, other: Outcome) -> list[Any]:
        """All that is not as in the other run, of which this is a part."""
        found: list[Any] = same(weights(self.module), weights(other.module))
        found += [key for key, value in self.diary.entries.items() if other.diary.entries.get(key) != value]
        records, expected = ([{**r, "seconds": 0} for r in o.callback.history] for o in (self, other))
        return found + [pair for pair in zip(records, expected, strict=True) if pair[0] != pair[1]]


def run(folder: Path, case: Case, checkpoint: Path | str | None = None) -> Outcome:
    # Another seed for the resumed run: whatever it needs must come out of the checkpoint.
    seed_everything(0 if checkpoint is None else 99)
    module, diary = case.module(), Diary()
    callback = KnowledgeEvolution(epochs_per_generation=case.epochs_per_generation, seed=0)
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **case.saver)
    trainer = make_trainer(folder, callbacks=[callback, saver, diary], enable_checkpointing=True, **case.trainer)
    trainer.fit(module, case.loader(), val_loader() if case.validation else None, ckpt_path=checkpoint)
    checkpoints = {int(path.stem.partition("=")[2]): path for path in folder.glob("step=*.ckpt")}
    return Outcome(module, callback, diary, trainer, checkpoints)


class Plateau(Classifier):
    """Its schedule waits for a metric and lowers the rate in every epoch but the first of each generation."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=1e9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


STEPS = {"max_epochs": -1, "max_steps": 16}

CASES = {
    # three steps make an epoch, two epochs a generation: a checkpoint of step 6 is of a generation's last batch
    "every step": (Case(), [1, 3, 6, 7]),
    "every step, without validation": (Case(validation=False), [3, 5, 6]),
    "every step, validated in every second epoch": (
        Case(trainer={"max_epochs": 6, "check_val_every_n_epoch": 2}),
        [3, 6],
    ),
    "every step, validated within epochs": (Case(trainer={"max_epochs": 6, "val_check_interval": 2}), [2, 3, 6]),
    "last batches, a plain loader": (Case(saver={"every_n_train_steps": 3}, resumable_loader=False), [3, 6, 9]),
    "epoch end, a resumable loader": (Case(saver={}), [3, 6]),
    "epoch end, random crops in worker processes": (Case(saver={}, trainer={"max_epochs": 4}, workers=2), [3, 6]),
    "last batches, random crops in worker processes": (
        Case({"every_n_train_steps": 3}, {"max_epochs": 4}, workers=2),
        [3, 6],
    ),
    "epoch end, limited by steps": (Case(saver={}, trainer=STEPS, resumable_loader=False), [3, 6]),
    "epoch end, limited by steps, without validation": (Case(saver={}, trainer=STEPS, validation=False), [6, 9]),
    "every step, limited by steps": (Case(trainer=STEPS), [5, 6, 9]),
    "epoch end, a schedule that waits for a metric": (
        Case(saver={}, trainer={"max_epochs": 8}, module=Plateau, epochs_per_generation=4),
        [3, 6],
    ),
    "validation end, a schedule that waits for a metric": (
        Case({"save_on_train_epoch_end": False}, {"max_epochs": 8}, Plateau, epochs_per_generation=4),
        [3, 6],
    ),
    "every step, a schedule that waits for a metric": (
        Case(trainer={"max_epochs": 8}, module=Plateau, epochs_per_generation=4),
        [5, 6],
    ),
}

SLOW = {
    "every step, validated in every second epoch",
    "every step, validated within epochs",
    "last batches, random crops in worker processes",
    "epoch end, limited by steps, without validation",
    "every step, limited by steps",
    "validation end, a schedule that waits for a metric",
    "every step, a schedule that waits for a metric",
}


@pytest.mark.compat(
    "Checkpoints and interruptions",
    "ModelCheckpoint: epoch end, validation end, every n steps",
    "works",
    note="resumes bit for bit; between two batches of an epoch with a resumable loader only",
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CASES]
)
def test_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    case, steps = CASES[name]
    whole = run(tmp_path / "whole", case)
    assert len(whole.callback.history) >= 2
    for step in steps:
        resumed = run(tmp_path / f"from-{step}", case, whole.checkpoints[step])
        assert resumed.differs_from(whole) == [], f"resumed from step {step}"
        assert resumed.trainer.fit_loop.epoch_loop._batches_that_stepped == (
            whole.trainer.fit_loop.epoch_loop._batches_that_stepped
        ), "the step that loggers are given"


@pytest.mark.compat("Checkpoints and interruptions", '`ckpt_path="last"`', "works")
def test_the_last_checkpoint_is_found(tmp_path: Path) -> None:
    case = Case(saver={"save_last": True}, resumable_loader=False)
    whole = run(tmp_path / "whole", case)
    run(tmp_path / "again", Case(saver={"save_last": True}, resumable_loader=False, trainer={"max_epochs": 4}))
    resumed = run(tmp_path / "again", case, "last")
    assert min(epoch for kind, epoch, *_ in resumed.diary.entries if kind == "loss") == 4
    assert resumed.differs_from(whole) == []


def test_more_generations_are_allowed_in_every_kind_of_checkpoint(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Case())
    shorter = run(tmp_path / "shorter", Case(trainer={"max_epochs": 4}))
    for step in (11, 12):  # within the last epoch of the shorter run, and at its last batch
        assert run(tmp_path / f"from-{step}", Case(), shorter.checkpoints[step]).differs_from(whole) == []
