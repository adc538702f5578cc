"""Data whose test classes nobody trains on, and batches that hold several examples of a class."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import SequentialSampler

from lightning_ke.data import (
    CarsRetrievalDataModule,
    ClassDisjointDataModule,
    CUB200RetrievalDataModule,
    DataNotFoundError,
    FlowersRetrievalDataModule,
    OmniglotDataModule,
)
from lightning_ke.data.class_disjoint import SeveralPerClass
from tests.data.layouts import lay_out_flowers, shades


def test_classes_for_testing_are_none_of_those_trained_on(tmp_path: Path) -> None:
    names = [f"{number:03}.Bird_{number}/{image}.jpg" for number in range(1, 201) for image in range(2)]
    shades(tmp_path / "CUB_200_2011" / "images", names)
    data = CUB200RetrievalDataModule(tmp_path, image_size=8, batch_size=8)
    data.setup("fit")
    data.setup("test")
    seen = {part: sorted(set(data._sets[part].labels.tolist())) for part in ("train", "val", "test")}
    assert seen == {"train": list(range(80)), "val": list(range(80, 100)), "test": list(range(100, 200))}
    assert data.num_classes == 80
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (8, 3, 8, 8)
    assert sorted(torch.bincount(labels).tolist())[-2:] == [4, 4]
    with pytest.raises(DataNotFoundError, match="CUB-200-2011"):
        CUB200RetrievalDataModule(tmp_path / "empty", image_size=8).setup("fit")
    shutil.rmtree(tmp_path / "CUB_200_2011" / "images" / "007.Bird_7")  # those behind it would change their places
    with pytest.raises(DataNotFoundError, match=r"not \(completely\) there"):
        CUB200RetrievalDataModule(tmp_path, image_size=8).setup("fit")


def test_cars_are_read_from_their_annotations(tmp_path: Path) -> None:
    names = [f"car_ims/{number:06}.jpg" for number in range(1, 393)]
    shades(tmp_path, names)
    kind = [("relative_im_path", "O"), ("class", "O")]
    rows = np.array([(name, number % 196 + 1) for number, name in enumerate(names)], dtype=kind)
    scipy.io.savemat(tmp_path / "cars_annos.mat", {"annotations": rows})
    data = CarsRetrievalDataModule(tmp_path, image_size=8)
    data.setup("test")
    labels = data._sets["test"].labels
    assert (int(labels.min()), int(labels.max()), len(labels)) == (98, 195, 196)
    with pytest.raises(DataNotFoundError, match="Stanford Cars"):
        CarsRetrievalDataModule(tmp_path / "empty", image_size=8).setup("fit")


def test_omniglot_s_evaluation_alphabets_are_for_testing(tmp_path: Path) -> None:
    for part, alphabets in (("images_background", ("Greek", "Latin")), ("images_evaluation", ("Angelic",))):
        names = [f"{a}/character{c:02}/{c:04}_{i:02}.png" for a in alphabets for c in range(1, 6) for i in range(3)]
        shades(tmp_path / "omniglot-py" / part, names, mode="L")
    OmniglotDataModule.total_classes, whole = 15, OmniglotDataModule.total_classes
    try:
        data = OmniglotDataModule(tmp_path, train_classes=10, val_classes=2, images_per_class=2, batch_size=4)
        data.setup("fit")
        data.setup("test")
        with pytest.raises(ValueError, match="Give `train_classes=10`"):
            OmniglotDataModule(tmp_path, train_classes=9, batch_size=4).setup("fit")
    finally:
        OmniglotDataModule.total_classes = whole
    assert [len(data._sets[part]) for part in ("train", "val", "test")] == [24, 6, 15]
    assert data.num_classes == 8


def test_flowers_for_retrieval_come_from_all_three_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out_flowers(tmp_path, monkeypatch)
    data = FlowersRetrievalDataModule(tmp_path, image_size=16, batch_size=4)
    data.setup("test")
    assert data._sets["test"].labels.tolist() == [101, 101]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_classes": 200}, "`val_classes` < `train_classes` < 200"),
        ({"images_per_class": 3}, "to divide `batch_size`, 32"),
    ],
)
def test_class_numbers_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CUB200RetrievalDataModule("nowhere", image_size=8, **options)


def test_batches_hold_several_examples_of_several_classes() -> None:
    labels = torch.cat([torch.arange(6).repeat(5), torch.tensor([6])])
    batches = SeveralPerClass(SequentialSampler(labels), labels, per_class=3, batch_size=12)
    assert [len(batch) for batch in batches] == [12, 12]
    assert len(batches) == 2
    for batch in batches:
        assert sorted(torch.bincount(labels[batch])[torch.bincount(labels[batch]) > 0].tolist()) == [3, 3, 3, 3]
    with pytest.raises(ValueError, match="at least 9 training classes"):
        SeveralPerClass(SequentialSampler(labels), labels, per_class=2, batch_size=18)


class Alphabet(ClassDisjointDataModule):
    """Ten images of each of eight letters; a batch is four of each of two."""

    total_classes = 8

    def __init__(self) -> None:
        super().__init__(image_size=4, batch_size=8, train_classes=6, val_classes=2, flip=False)

    def read_all(self, side: int) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        shades = torch.arange(80)
        return [torch.full((4, 4, 3), int(shade), dtype=torch.uint8) for shade in shades], shades // 10


class Watching(LightningModule):
    """Writes down what a rank is trained on."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.layer = folder, torch.nn.Linear(1, 1)
        self.seen: list[tuple[list[int], list[float]]] = []

    def training_step(self, batch: Any) -> torch.Tensor:
        images, labels = batch
        self.seen.append((labels.tolist(), images[:, 0, 0, 0].tolist()))
        torch.save(self.seen, self.folder / f"rank{self.global_rank}.pt")
        loss: torch.Tensor = self.layer(images.mean((1, 2, 3))[:, None]).sum()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.slow
def test_under_ddp_each_rank_s_batches_hold_several_of_a_class_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):  # the launcher leaves them
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    seed_everything(0, verbose=False)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=2, **options).fit(
        Watching(tmp_path), Alphabet()
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 4  # 40 training images, 8 in a batch, two ranks, two epochs
    for labels, _ in first + second:
        assert sorted(Counter(labels).values()) == [4, 4]
    assert [labels for labels, _ in first] != [labels for labels, _ in second]
    for epoch in (slice(0, 2), slice(2, 4)):  # each image is one rank's in an epoch
        shown = [{value for _, values in seen[epoch] for value in values} for seen in (first, second)]
        assert not shown[0] & shown[1]
