"""Both of Lightning's namespaces and both command lines accept the callback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning_namespace
import pytest
import pytorch_lightning as pytorch_lightning_namespace
import torch
from torch.nn import functional as F

from lightning_ke import KnowledgeEvolution, KnowledgeEvolutionCallback
from tests.callback.modules import network, train_loader, val_loader

NAMESPACES = [lightning_namespace, pytorch_lightning_namespace]


def module_of(namespace: Any) -> Any:
    class Net(namespace.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = network()
            self.example_input_array = torch.zeros(1, 3, 6, 6)

        def forward(self, x: Any) -> Any:
            return self.model(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

        def train_dataloader(self) -> Any:
            return train_loader()

        def val_dataloader(self) -> Any:
            return val_loader()

    return Net


@pytest.mark.compat("Trainers and command lines", "`lightning.pytorch` and `pytorch_lightning`", "works")
@pytest.mark.parametrize("namespace", NAMESPACES, ids=["lightning", "pytorch_lightning"])
@pytest.mark.parametrize("listed", [True, False], ids=["in a list", "alone"])
def test_the_trainers_of_both_namespaces(tmp_path: Path, namespace: Any, listed: bool) -> None:
    callback = KnowledgeEvolution(generations=2, seed=0)
    module = module_of(namespace)()
    trainer = namespace.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if listed else callback,
    )
    trainer.fit(module)
    assert [record["generation"] for record in callback.history] == [1, 2]
    slim = callback.slim_network(module)
    [score] = trainer.validate(slim, verbose=False)
    assert callback.history[-1]["fit"]["val_loss"] == pytest.approx(score["val_loss"], rel=1e-5)


@pytest.mark.compat("Trainers and command lines", "LightningCLI of both namespaces", "works")
@pytest.mark.parametrize("namespace", NAMESPACES, ids=["lightning", "pytorch_lightning"])
def test_the_command_lines_of_both_namespaces(tmp_path: Path, namespace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonargparse")
    cli = __import__(f"{namespace.__name__}.cli", fromlist=["LightningCLI"]).LightningCLI
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train"])
    arguments = [
        "fit",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=lightning_ke.KnowledgeEvolution",
        "--trainer.callbacks.split=kels",
        "--trainer.callbacks.rate=0.5",
        "--trainer.callbacks.generations=2",
        "--trainer.callbacks.optimizer=clear",
        "--optimizer=SGD",
        "--optimizer.lr=0.01",
    ]
    app = cli(module_of(namespace), args=arguments, seed_everything_default=0, save_config_callback=None)
    [callback] = [c for c in app.trainer.callbacks if isinstance(c, KnowledgeEvolution)]
    assert [record["ended"] for record in callback.history] == ["length", "length"]
    assert callback.history[0]["lr"]["first"] == 0.01


def test_the_long_name_is_the_same_class() -> None:
    assert KnowledgeEvolutionCallback is KnowledgeEvolution
