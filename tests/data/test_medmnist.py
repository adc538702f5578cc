"""MedMNIST: its scores are those of its own evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_ke.data import (
    DataNotFoundError,
    MedMNISTDataModule,
)
from lightning_ke.losses import ClassWiseDistillation
from tests.data.layouts import lay_out_medmnist


@pytest.mark.parametrize(
    ("name", "channels", "labels", "classes"),
    [("bloodmnist", 3, 1, 8), ("pneumoniamnist", 1, 1, 2), ("retinamnist", 3, 1, 5), ("chestmnist", 1, 14, 2)],
)
def test_auc_and_accuracy_are_those_of_medmnist_s_own_evaluator(
    tmp_path: Path, name: str, channels: int, labels: int, classes: int
) -> None:
    evaluator = pytest.importorskip("medmnist.evaluator")
    from torch import nn

    from lightning_ke.tasks import Classification, MultiLabel

    lay_out_medmnist(tmp_path, name, channels, labels, classes)
    data = MedMNISTDataModule(tmp_path, name, batch_size=25)
    assert (data.in_channels, data.num_classes) == (channels, labels if labels > 1 else classes)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, data.num_classes))
    task = MultiLabel(net, 14) if labels > 1 else Classification(net, classes, auc=True)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    (scores,) = trainer.test(task, data, verbose=False)
    with torch.no_grad():
        outputs = torch.cat([net(images) for images, _ in data.test_dataloader()])
    predicted = (outputs.sigmoid() if labels > 1 else outputs.softmax(1)).numpy()
    with np.load(tmp_path / f"{name}.npz") as stored:
        wanted, pixels = stored["test_labels"], torch.from_numpy(stored["test_images"]).view(60, 28, 28, channels)
    images = torch.cat([images for images, _ in data.test_dataloader()])
    torch.testing.assert_close((images + 1) * 127.5, pixels.permute(0, 3, 1, 2).float())  # whole, as the authors test
    assert scores["test_auc"] == pytest.approx(evaluator.getAUC(wanted, predicted, data.info["task"]), abs=1e-6)
    assert scores["test_acc"] == pytest.approx(evaluator.getACC(wanted, predicted, data.info["task"]), abs=1e-6)


def test_rare_findings_come_as_often_as_the_others(tmp_path: Path) -> None:
    pytest.importorskip("medmnist")
    arrays = {f"{part}_images": np.zeros((400, 28, 28), np.uint8) for part in ("train", "val", "test")}
    arrays |= {f"{part}_labels": (np.arange(400)[:, None] < 20).astype(np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    for balanced, low, high in ((False, 20, 20), (True, 150, 250)):
        data = MedMNISTDataModule(tmp_path, "pneumoniamnist", balanced=balanced, batch_size=50)
        data.setup("fit")
        rare = sum(int(labels.sum()) for _, labels in data.train_dataloader())
        assert low <= rare <= high
    data.trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    data.trainer.strategy._lightning_module = LightningModule()
    data.trainer.strategy._lightning_module.loss = ClassWiseDistillation()
    _, labels = next(iter(data.train_dataloader()))
    assert torch.equal(labels[:50], labels[50:])  # pairs, balanced all the same
    assert 10 < int(labels[:50].sum()) < 40
    with pytest.raises(ValueError, match="pos_weight"):
        MedMNISTDataModule(tmp_path, "chestmnist", balanced=True)
    with pytest.raises(ValueError, match="an image of 'chestmnist' has several labels"):
        MedMNISTDataModule(tmp_path, "chestmnist", label_noise=0.1)
    with pytest.raises(ValueError, match="`dataset` to be one of 'pathmnist'"):
        MedMNISTDataModule(tmp_path, "organmnist3d")
    with pytest.raises(DataNotFoundError, match="bloodmnist_64"):
        MedMNISTDataModule(tmp_path, "bloodmnist", size=64).setup("fit")
