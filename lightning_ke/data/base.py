"""The data module that all image sets share: read once into memory, augment on tensors, three loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from lightning_ke.data.images import CenterCrop, Crop, ImageSet, RandomCrop, as_is
from lightning_ke.losses.pairs import PairBatchSampler

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Loader = DataLoader[tuple[Tensor, Tensor]]


class DataNotFoundError(FileNotFoundError):
    """The images are not where they were expected; the message says where to get them and where to put them."""


class ImageDataModule(LightningDataModule, ABC):
    """Images and labels for classification; subclasses say where they come from (`read`, `num_classes`).

    Training images are cropped and mirrored at random, each on its own; validation and test images are resized and cut
    in the middle. With `num_workers=0` (enough for small images: the data costs a few per cent of a step) or more, the
    same RNG state gives the same epoch.

    Args:
        image_size: Side of the images that the network sees, in pixels.
        eval_resize: What the shorter side of a validation or test image is resized to before its middle is cut out, in
            pixels; None for the usual 256 / 224 of `image_size`.
        memory_size: What the shorter side of a training image is reduced to in memory, in pixels (smaller images are
            kept as they are); None for 1.5 times `image_size`.
        batch_size: Images per batch and device.
        crop_scale: Smallest and largest share of a training image's area that is cut out.
        flip: Whether half of the training images are mirrored.
        mean: Per channel, in units of full intensity.
        std: Per channel, in units of full intensity.
        num_workers: Worker processes per loader.
    """

    #: Channels of an image.
    in_channels = 3

    def __init__(
        self,
        *,
        image_size: int,
        eval_resize: int | None = None,
        memory_size: int | None = None,
        batch_size: int = 32,
        crop_scale: Sequence[float] = (0.08, 1.0),
        flip: bool = True,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.image_size = _positive("image_size", image_size)
        self.eval_resize = round(image_size * 256 / 224) if eval_resize is None else eval_resize
        self.memory_size = round(image_size * 1.5) if memory_size is None else memory_size
        for name, value in (("eval_resize", self.eval_resize), ("memory_size", self.memory_size)):
            if value < image_size:
                raise ValueError(
                    f"Expected argument `{name}` to be at least `image_size`, {image_size} px, but got {value}. "
                    "Raise it, or leave it out for the default."
                )
        low, high = crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"Expected argument `crop_scale` to be two shares of the area in (0, 1], the smaller first, "
                f"but got {tuple(crop_scale)}. Give for example [0.08, 1.0]."
            )
        self.batch_size = _positive("batch_size", batch_size)
        self.crop_scale = (low, high)
        self.flip = flip
        self.mean, self.std = tuple(mean), tuple(std)
        self.num_workers = num_workers
        self._sets: dict[str, ImageSet] = {}

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes; known once the data is there."""

    @abstractmethod
    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Read one part into memory.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            uint8 images of shape (H, W, C) each, sizes may differ, and int64 labels of shape (N,).
        """

    def setup(self, stage: str) -> None:
        """Read the parts that a stage needs; test images are read for testing only.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        """
        for part in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            if part not in self._sets:
                images, labels = self.read(part)
                self._sets[part] = ImageSet(images, labels, self.crop(part), self.mean, self.std)

    def crop(self, part: str) -> Crop:
        """How the images of a part are cut.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        if part == "train":
            return RandomCrop(self.image_size, self.crop_scale, flip=self.flip)
        return CenterCrop(self.image_size, self.eval_resize)

    def memory_side(self, part: str) -> int:
        """What the shorter side of an image is reduced to in memory, in pixels.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        return self.memory_size if part == "train" else self.eval_resize

    def train_dataloader(self) -> Loader:
        """The training images in random order."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Loader:
        """The validation images."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """The test images."""
        return self._loader("test")

    def predict_dataloader(self) -> Loader:
        """The test images."""
        return self._loader("test")

    def _loader(self, part: str, *, shuffle: bool = False) -> Loader:
        images = self._sets[part]
        # Batch statistics of a single image do not exist, so a last batch of one is left out.
        drop_last = shuffle and len(images) % self.batch_size == 1
        order: dict[str, Any] = {"batch_size": self.batch_size, "shuffle": shuffle, "drop_last": drop_last}
        if shuffle and self._needs_pairs:
            pairs = PairBatchSampler(RandomSampler(images), self.batch_size, drop_last, images.labels)
            order = {"batch_sampler": pairs}
        return DataLoader(
            images,
            num_workers=self.num_workers,
            collate_fn=as_is,
            pin_memory=torch.cuda.is_available(),
            **order,
        )

    @property
    def _needs_pairs(self) -> bool:
        """Whether the module in training has a loss that asks for a second image of each image's class."""
        module = getattr(self.trainer, "lightning_module", None)
        return bool(getattr(getattr(module, "loss", None), "needs_pairs", False))


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"Expected argument `{name}` to be at least 1, but got {value}.")
    return value
