"""What trainings cost: forward and backward passes, counted."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ke.app.experiment import run
from lightning_ke.app.meter import Meter
from tests.app.commands import composed


class Books:
    """A run's folder, as far as a meter knows it."""

    ticks = 0

    def tick(self):
        self.ticks += 1


class Net(LightningModule):
    """One matrix product whose input needs no gradient, and one whose input does; the first batch runs twice."""

    def __init__(self, fails=-1):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
        self.fails = fails

    def training_step(self, batch, batch_idx):
        if batch_idx == self.fails:
            raise RuntimeError("out of memory")
        (x,) = batch
        loss = self.second(self.first(x)).sum()
        return loss + self.second(self.first(x)).sum() if batch_idx == 0 else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


EXAMPLE = 2 * (4 * 8 * 2 + 8 * 2 * 3)  # multiplications and additions: forward, weights' gradient, input's gradient


def fit(meter, module, epochs=3):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[meter], **quiet)
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(18, 4)), 4))


def test_every_step_counts_for_what_it_runs():
    """Batches of 4, 4, 4, 4 and 2; the first costs twice as much."""
    meter = Meter(Books())
    fit(meter, Net())
    assert meter.operations == 3 * (18 + 4) * EXAMPLE
    assert meter._folder.ticks == 3


def test_a_resumed_run_counts_on():
    first, second = Meter(Books()), Meter(Books())
    fit(first, Net(), epochs=1)
    second.load_state_dict(first.state_dict())
    fit(second, Net(), epochs=2)
    assert second.operations == 3 * (18 + 4) * EXAMPLE


def test_nothing_is_counted_behind_a_step_that_failed():
    meter = Meter(Books())
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(meter, Net(fails=1))
    assert meter._counter is None
    assert meter.operations == 2 * 4 * EXAMPLE


def test_a_slim_network_and_a_teacher_cost_what_they_cost(tmp_path):
    short = [
        "experiment=smoke", "logger=none", "trainer.enable_progress_bar=false", "warmup=0",
        "trainer.limit_train_batches=3", "trainer.limit_test_batches=1", "generations.count=2", "generations.epochs=2",
    ]  # fmt: skip

    def cost(name, *more):
        run(composed(*short, *more), tmp_path / name)
        results = json.loads((tmp_path / name / "results.json").read_text())
        return results["training_operations"], {
            network: scores["operations"] for network, scores in results["networks"].items()
        }

    plain, networks = cost("plain")
    images = 2 * 2 * 3 * 50
    assert 2.8 * networks["dense"] * images < plain < 3 * networks["dense"] * images
    slim_first, _ = cost("slim-first", "generations=slim_first", "generations.phases.0.end=0.5")
    share = networks["slim"] / networks["dense"]
    assert slim_first / plain == pytest.approx(0.5 + 0.5 * share, rel=0.02)
    teacher = f"loss.teacher.checkpoint={tmp_path / 'plain' / 'checkpoints' / 'last.ckpt'}"
    taught, _ = cost("taught", "loss=distillation", teacher)
    assert taught - plain == networks["dense"] * images
