"""Small LightningModules and data of the kinds that users bring, for the tests of the callback."""

from __future__ import annotations

import re
from typing import Any

import torch
import torchmetrics
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 4


def named(value: object) -> str:
    """The name of a test's argument; without the addresses of objects, which differ in each process."""
    return re.sub(r" at 0x\w+", "", str(value))


def network(width: int = 8, dropout: float = 0.2) -> nn.Module:
    """A convolutional network with normalisation, dropout and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(width, CLASSES),
    )


def data(count: int = 24, seed: int = 0) -> TensorDataset:
    """Images whose class can be learnt: each class has a mean of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, 3, 6, 6, generator=torch.Generator().manual_seed(7))
    return TensorDataset(centres[labels] + torch.randn(count, 3, 6, 6, generator=generator), labels)


def train_loader(batch_size: int = 8, **kwargs: Any) -> DataLoader[Any]:
    """24 shuffled images."""
    return DataLoader(data(), batch_size=batch_size, shuffle=True, **kwargs)


def val_loader(batch_size: int = 8, count: int = 20, seed: int = 1) -> DataLoader[Any]:
    """20 images, so that the last batch is smaller than the others."""
    return DataLoader(data(count, seed), batch_size=batch_size)


class Classifier(LightningModule):
    """The ordinary module: SGD with momentum, a cosine over the Trainer's length, a torchmetrics object."""

    def __init__(self, lr: float = 0.05, dropout: float = 0.2) -> None:
        super().__init__()
        self.model = network(dropout=dropout)
        self.val_acc = torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro")
        self.example_input_array = torch.zeros(2, 3, 6, 6)
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.val_acc(logits, y)
        self.log("val_loss", F.cross_entropy(logits, y), on_epoch=True, on_step=False)
        self.log("val_acc", self.val_acc, on_epoch=True, on_step=False)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def make_trainer(tmp_path: Any, **kwargs: Any) -> Trainer:
    """A quiet Trainer on one CPU device."""
    options: dict[str, Any] = {
        "default_root_dir": tmp_path,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**{**options, **kwargs})


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the entries that are not bit-identical."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
