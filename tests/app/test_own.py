"""Somebody's own module, data module and configuration, in a folder of their own."""

import json

from tests.app.commands import ke

CODE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Waves(LightningDataModule):
    def __init__(self, length, count=32):
        super().__init__()
        self.length, self.count = length, count

    def loader(self, seed):
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(2, (self.count,), generator=generator)
        x = torch.randn(self.count, self.length, generator=generator) + label[:, None]
        return DataLoader(TensorDataset(x, label), batch_size=8)

    def train_dataloader(self):
        return self.loader(0)

    def val_dataloader(self):
        return self.loader(1)

    def test_dataloader(self):
        return self.loader(2)


class Net(LightningModule):
    def __init__(self, length, hidden, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(length, hidden), nn.ReLU(), nn.Linear(hidden, 2))

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("right", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch):
        self.log("test_right", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
"""

CONF = {
    "datamodule/waves.yaml": "_target_: waves.Waves\nlength: 6\n",
    "task/net.yaml": "_target_: waves.Net\nlength: ${datamodule.length}\nhidden: 8\n",
    "experiment/waves.yaml": (
        "# @package _global_\n"
        "defaults:\n  - override /datamodule: waves\n  - override /task: net\n\n"
        "monitor: right\ngenerations:\n  count: 2\n  epochs: 1\n"
    ),
}


def test_a_folder_of_one_s_own(tmp_path):
    (tmp_path / "waves.py").write_text(CODE)
    for name, text in CONF.items():
        file = tmp_path / "settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    short = ["trainer.enable_progress_bar=false", "hydra.run.dir=out", "task.hidden=12"]
    done = ke("train", "--config-dir", "settings", "experiment=waves", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    networks = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    assert networks["dense"]["parameters"] == 6 * 12 + 12 + 12 * 2 + 2
    assert networks["slim"]["parameters"] == 6 * 6 + 6 + 6 * 2 + 2
    assert networks["slim"]["test_right"] >= 0


def test_a_mistake_in_it_is_one_line(tmp_path):
    (tmp_path / "waves.py").write_text(CODE)
    own = ["task._target_=waves.Nett", "hydra.run.dir=out", "+task.hidden=3"]
    done = ke("train", *own, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Expected `_target_` to name something that can be imported, but got 'waves.Nett'" in done.stderr
