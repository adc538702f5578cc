"""MedMNIST's sets of two-dimensional medical images, from the .npz files that their authors give out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from lightning_ke.arguments import check_choice
from lightning_ke.data.base import ImageDataModule, Loader
from lightning_ke.data.decode import DataNotFoundError
from lightning_ke.data.images import ImageSet
from lightning_ke.extras import import_extra


class MedMNISTDataModule(ImageDataModule):
    """One of MedMNIST's 2-d sets with its official split.

    Multi-class, binary and ordinal sets have int64 labels of shape (N,) for `Classification(auc=True)`; a multi-label
    set (ChestMNIST) has labels of shape (N, labels) for `MultiLabel`. Both then report AUC and accuracy as the authors'
    evaluator does.

    Args:
        root: The folder that holds ``NAME.npz`` (28 px) or ``NAME_SIZE.npz``.
        dataset: Name of the set, such as "pneumoniamnist".
        size: Side of the stored images, in pixels: 28, 64, 128 or 224.
        balanced: Whether training images are drawn (with replacement) so that all classes come equally often; for sets
            in which healthy images are many and a finding is rare.
        download: Whether the authors' package may download the file into `root`.
        flip: Whether half of the training images are mirrored; not by default, because left and right mean something.
        **options: Further options of `ImageDataModule`.

    Raises:
        ValueError: If there is no such 2-d set, or classes of a multi-label set are to be balanced, few or wrong.
        DataNotFoundError: From `setup`, if the file is not there.

    Source:
        "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification" (Scientific
        Data, 2023).
    """

    def __init__(
        self,
        root: str | Path,
        dataset: str,
        *,
        size: int = 28,
        balanced: bool = False,
        download: bool = False,
        flip: bool = False,
        **options: Any,
    ) -> None:
        known = import_extra("medmnist", "medical").INFO
        names = tuple(name for name in known if "3d" not in name)
        check_choice("dataset", dataset, names)
        check_choice("size", str(size), ("28", "64", "128", "224"))
        half = (0.5, 0.5, 0.5)
        self.info: dict[str, Any] = known[dataset]
        self.in_channels = int(self.info["n_channels"])
        defaults = {"image_size": size, "mean": half[: self.in_channels], "std": half[: self.in_channels]}
        options = {**defaults, **options}
        # What the authors evaluate is the whole image.
        super().__init__(flip=flip, **{"eval_resize": options["image_size"], **options})
        self.root = Path(root)
        self.dataset = dataset
        self.size = size
        self.multi_label = self.info["task"].startswith("multi-label")
        if balanced and self.multi_label:
            raise ValueError(
                f"Expected argument `balanced` to be False for {dataset!r}, in which an image has several labels, but "
                "got True. Weigh the rare labels in the loss: `torch.nn.BCEWithLogitsLoss(pos_weight=...)`."
            )
        if self.multi_label:
            self.refuse_class_options(f"an image of {dataset!r} has several labels")
        self.balanced = balanced
        self.download = download

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels."""
        return len(self.info["label"])

    @property
    def file(self) -> Path:
        """The file of the set."""
        return self.root / (f"{self.dataset}.npz" if self.size == 28 else f"{self.dataset}_{self.size}.npz")

    def prepare_data(self) -> None:
        """Download the file, if that was asked for and it is not there."""
        if self.download and not self.file.exists():
            source = getattr(import_extra("medmnist", "medical"), self.info["python_class"])
            source(split="train", root=str(self.root), size=self.size, download=True)

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Read one part into memory.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        try:
            with np.load(self.file) as stored:
                pixels, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
        except FileNotFoundError as error:
            raise DataNotFoundError(
                f"Expected {self.dataset} in {str(self.file)!r}, but it is not there. Download it from "
                "https://zenodo.org/records/10519652, or set `download=True`."
            ) from error
        images = torch.from_numpy(pixels)
        images = images.unsqueeze(3) if images.ndim == 3 else images
        wanted = torch.from_numpy(labels.astype(np.int64))
        return list(images), wanted if self.multi_label else wanted.flatten()

    def train_dataloader(self) -> Loader:
        """The training images in random order, or drawn so that all classes come equally often."""
        if not self.balanced:
            return super().train_dataloader()
        return self._loader("train", self._balanced_sampler)

    def _balanced_sampler(self, images: ImageSet) -> WeightedRandomSampler:
        share = 1 / torch.bincount(images.labels, minlength=self.num_classes).clamp(min=1).double()
        return WeightedRandomSampler(share[images.labels].tolist(), len(images))
