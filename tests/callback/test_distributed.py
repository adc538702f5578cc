"""Several processes: the same mask, the same redrawn values, the same network on every rank."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_ke as ke
from lightning_ke import KnowledgeEvolution
from lightning_ke.phases import Ascent, Dropped, Rescale, SlimFirst, Slimmable, Sparse
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader, weights


class Report(Callback):
    """Writes what this rank sees: the weights after each redraw, the mask, the history."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            # Ranks whose global generators differ must still redraw the same values.
            torch.rand(1 + trainer.global_rank)
            name = f"weights-{trainer.current_epoch}-{trainer.global_rank}.pt"
            torch.save({k: v for k, v in weights(pl_module).items() if "running" not in k}, self.folder / name)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        [callback] = [c for c in trainer.callbacks if isinstance(c, KnowledgeEvolution)]
        assert callback.mask is not None
        state = {"mask": callback.mask.state_dict(), "history": callback.history, "weights": weights(pl_module)}
        torch.save(state, self.folder / f"end-{trainer.global_rank}.pt")


def train(
    folder: Path, split: Any, epochs: int, checkpoint: Path | None = None, *, example: bool = True, **options: Any
) -> None:
    folder.mkdir(exist_ok=True)
    seed_everything(0)  # the distributed sampler that Lightning puts in takes its order from it
    callback = KnowledgeEvolution(**{"split": split, "epochs_per_generation": 1, **options})
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(
        folder,
        devices=2,
        strategy="ddp_spawn",
        max_epochs=epochs,
        callbacks=[callback, saver, Report(folder)],
        enable_checkpointing=True,
    )
    module = Classifier()
    if not example:
        module.example_input_array = None
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Lightning's launcher leaves the addresses of its processes in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["kels", "wels", "snip", "importance", "bottom-up", "overlap", ke.Dormant(0.7)])
def test_two_processes_stay_one_network_and_resume_exactly(tmp_path: Path, split: Any) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(whole, split, 3)
    for epoch in range(3):
        one, other = (torch.load(whole / f"weights-{epoch}-{rank}.pt") for rank in (0, 1))
        assert same(one, other) == [], f"the ranks differ after the redraw before epoch {epoch}"
    ends = [torch.load(whole / f"end-{rank}.pt") for rank in (0, 1)]
    for name in ("dense", "fit"):  # a torchmetrics object counts the batches of all ranks
        one, other = ([record[name]["val_acc"] for record in end["history"]] for end in ends)
        assert one == other
    train(again, split, 3, whole / "epoch=0.ckpt")
    resumed = torch.load(again / "end-0.pt")
    assert same(ends[0]["weights"], resumed["weights"]) == []


@pytest.mark.slow
def test_a_network_without_example_input_is_listened_to(tmp_path: Path) -> None:
    """DDP calls a training step by the name of the forward, which is no call of the network."""
    with_example, without = tmp_path / "with", tmp_path / "without"
    train(with_example, "kels", 2)
    train(without, "kels", 2, example=False)
    masks = [torch.load(folder / "end-0.pt")["mask"] for folder in (with_example, without)]
    assert ke.Mask.from_state_dict(masks[0]) == ke.Mask.from_state_dict(masks[1])


PHASES = {
    "dsd": {"split": "wels", "reset": "none", "phases": [Sparse(0.5, begin=0.5)]},
    "ac/dc": {"split": "wels", "optimizer": "keep", "phases": [Sparse(0.8, end=0.5, scope="all", first_generation=2)]},
    "seal": {"split": "wels", "reset": "none", "phases": [Ascent(["model.0.*"], end=0.5)]},
    "lw": {"split": "bottom-up", "phases": [Rescale()]},
    "repr": {"split": "overlap", "reset": "orthogonal", "phases": [Dropped(end=0.5)]},
    "slim-first": {"split": "kels", "phases": [SlimFirst(end=0.5)]},
    "slimmable": {"split": "kels", "phases": [Slimmable(begin=0.5)]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PHASES)
def test_phases_do_the_same_on_two_processes_and_resume_exactly(tmp_path: Path, name: str) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(whole, epochs=4, **{"epochs_per_generation": 2, **PHASES[name]})
    for epoch in range(4):
        one, other = (torch.load(whole / f"weights-{epoch}-{rank}.pt") for rank in (0, 1))
        assert same(one, other) == [], f"the ranks differ at the start of epoch {epoch}"
    train(again, epochs=4, checkpoint=whole / "epoch=2.ckpt", **{"epochs_per_generation": 2, **PHASES[name]})
    ends = [torch.load(folder / "end-0.pt") for folder in (whole, again)]
    assert same(ends[0]["weights"], ends[1]["weights"]) == []
