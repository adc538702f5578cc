"""The data module that all image sets share: read once into memory, augment on tensors, three loaders."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler

from lightning_ke.arguments import whole, whole_or_none
from lightning_ke.data.decode import Undecoded
from lightning_ke.data.images import CenterCrop, Crop, ImageSet, RandomCrop, ShiftCrop, as_is
from lightning_ke.data.selection import few_of_each, wrong_labels
from lightning_ke.losses.pairs import PairBatchSampler

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Loader = DataLoader[tuple[Tensor, Tensor]]


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
        padding: If given, training images are resized to `image_size`, padded by so many pixels and shifted, as is
            usual for images of 32 px, instead of cropped by `crop_scale`.
        per_class: How many training images of each class are used; None for all.
        label_noise: Share of the training labels that are wrong, in [0, 1): another class, drawn uniformly.
        seed: Seed of what is held out for validation, `per_class` and `label_noise`.

    Raises:
        ValueError: If an argument is out of range, or (from `setup`) a class has fewer images than `per_class`.

    Attributes:
        wrong_labels: Positions of the training images whose labels are wrong, once they are read.
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
        padding: int | None = None,
        per_class: int | None = None,
        label_noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.image_size = image_size = whole("image_size", image_size, least=1)
        self.batch_size = whole("batch_size", batch_size, least=1)
        self.num_workers = whole("num_workers", num_workers, least=0)
        self.padding = whole_or_none("padding", padding, least=0)
        self.per_class = whole_or_none("per_class", per_class, least=1)
        self.seed = whole("seed", seed, least=0)
        eval_resize = whole_or_none("eval_resize", eval_resize, least=1)
        memory_size = whole_or_none("memory_size", memory_size, least=1)
        if not 0 <= label_noise < 1:
            raise ValueError(
                f"Expected argument `label_noise` to be in [0, 1), but got {label_noise}. It is a share of labels."
            )
        self.eval_resize = round(image_size * 256 / 224) if eval_resize is None else eval_resize
        self.memory_size = round(image_size * 1.5) if memory_size is None else memory_size
        for name, value in (("eval_resize", self.eval_resize), ("memory_size", self.memory_size)):
            if value < image_size:
                raise ValueError(
                    f"Expected argument `{name}` to be at least `image_size`, {image_size} px, but got {value}. "
                    "Raise it, or leave it out for the default."
                )
        low, high = crop_scale if len(crop_scale) == 2 else (0, 0)
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"Expected argument `crop_scale` to be two shares of the area in (0, 1], the smaller first, "
                f"but got {tuple(crop_scale)}. Give for example [0.08, 1.0]."
            )
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, self.in_channels) or (name == "std" and not all(value > 0 for value in values)):
                more = ", greater than 0" if name == "std" else ""
                raise ValueError(
                    f"Expected argument `{name}` to be a number for each of {self.in_channels} channels, or one for all"
                    f"{more}, but got {tuple(values)}."
                )
        self.crop_scale = (low, high)
        self.flip = flip
        self.mean, self.std = tuple(mean), tuple(std)
        self.label_noise = label_noise
        self.wrong_labels: Tensor | None = None
        # What a schedule may change on the way.
        self._strength, self._training_size = 1.0, self.image_size
        self._sets: dict[str, ImageSet] = {}

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes; known once the data is there."""

    @abstractmethod
    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Read one part.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            uint8 images of shape (H, W, C) each, sizes may differ, or `Undecoded`; and int64 labels of shape (N,).
        """

    def find_test(self) -> None:
        """Raise what reading the test images would, before a long training; no image is decoded."""

    def in_memory(self, part: str, count: int) -> bool:
        """Whether images that were read undecoded are decoded once into memory.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
            count: How many images of it are used.
        """
        return True

    def setup(self, stage: str) -> None:
        """Read the parts that a stage needs; test images are read for testing only.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        """
        for part in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            if part not in self._sets:
                images, labels = self.read(part)
                if part == "train":
                    images, labels = self._choose(images, labels)
                if isinstance(images, Undecoded) and self.in_memory(part, len(images)):
                    images = images.decode()
                self._sets[part] = ImageSet(images, labels, self.crop(part), self.mean, self.std)

    def _choose(self, images: Sequence[Tensor], labels: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """The training images that are used, with the labels that they are trained with."""
        if self.per_class is not None:
            chosen = few_of_each(labels, self.per_class, self.seed)
            images = images.choose(chosen) if isinstance(images, Undecoded) else [images[i] for i in chosen.tolist()]
            labels = labels[chosen]
        if self.label_noise:
            labels, self.wrong_labels = wrong_labels(labels, self.label_noise, self.num_classes, self.seed)
            rank_zero_info(
                f"{len(self.wrong_labels):,} of {len(labels):,} training labels are wrong on purpose "
                f"(label_noise={self.label_noise}, seed {self.seed})."
            )
        return images, labels

    def refuse_class_options(self, why: str) -> None:
        """Refuse options that choose or change labels of one class for each image; for sets whose labels are others.

        Args:
            why: What the labels are instead.

        Raises:
            ValueError: If `per_class` or `label_noise` was given.
        """
        if self.per_class is not None or self.label_noise:
            raise ValueError(
                f"Expected arguments `per_class` and `label_noise` to be left out, because {why}, but got "
                f"per_class={self.per_class} and label_noise={self.label_noise}."
            )

    def crop(self, part: str) -> Crop:
        """How the images of a part are cut.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        if part != "train":
            return CenterCrop(self.image_size, self.eval_resize)
        if self.padding is not None:
            return ShiftCrop(self._training_size, self.padding, flip=self.flip)
        low, high = self.crop_scale
        smallest = high - self._strength * (high - low)
        return RandomCrop(self._training_size, (smallest, high), flip=self.flip and self._strength > 0)

    def augment(self, strength: float) -> None:
        """Crop training images more or less at random from now on; for `GenerationSchedule(augmentation=...)`.

        Args:
            strength: From 0 (whole images, as large as they are, not mirrored) to 1 (as configured), in between for the
                smallest crop.

        Raises:
            ValueError: If it is out of range, or images are shifted (`padding`) instead of cropped.
        """
        if not 0 <= strength <= 1 or self.padding is not None:
            raise ValueError(
                f"Expected an augmentation strength in [0, 1] for images that are cropped, but got {strength} with "
                f"`padding={self.padding}`. Leave `padding` out, or `augmentation` out of the schedule."
            )
        self._strength = strength
        self._crop_anew()

    def resize(self, image_size: int) -> None:
        """Train on images of another size from now on; for `GenerationSchedule(image_size=...)`.

        Validation and test images stay as large as they are. The network must take both sizes.

        Args:
            image_size: Side of the training images, in pixels, at most that of `memory_size`.

        Raises:
            ValueError: If images would be larger than they are kept.
        """
        if not 1 <= image_size <= self.memory_size:
            raise ValueError(
                f"Expected an image size of 1 to {self.memory_size} px (`memory_size`), but got {image_size}. Raise "
                "`memory_size`, or take smaller sizes in the schedule."
            )
        self._training_size = image_size
        self._crop_anew()

    def _crop_anew(self) -> None:
        if "train" in self._sets:
            self._sets["train"] = replace(self._sets["train"], crop=self.crop("train"))

    def memory_side(self, part: str) -> int:
        """What the shorter side of an image is reduced to in memory, in pixels.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        return self.memory_size if part == "train" else self.eval_resize

    def train_dataloader(self) -> Loader:
        """The training images in random order."""
        return self._loader("train", RandomSampler)

    def val_dataloader(self) -> Loader:
        """The validation images."""
        return self._loader("val")

    def test_dataloader(self) -> Loader:
        """The test images."""
        return self._loader("test")

    def predict_dataloader(self) -> Loader:
        """The test images."""
        return self._loader("test")

    def _loader(self, part: str, sampled: Callable[[ImageSet], Sampler[int]] | None = None) -> Loader:
        """The loader of a part; `sampled` draws from a training set, whose batches may have to be of pairs."""
        images = self._sets[part]
        order: dict[str, Any] = {"batch_size": self.batch_size}
        if sampled is not None:
            order |= {
                "sampler": sampled(images),
                "drop_last": ends_in_one(len(images), self.batch_size, self.trainer),
            }
            if self._needs_pairs:
                order = {"batch_sampler": PairBatchSampler(**order, labels=images.labels)}
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


def ends_in_one(count: int, batch_size: int, trainer: Trainer | None) -> bool:
    """Whether the last batch of an epoch holds a single example, for which batch statistics do not exist.

    Args:
        count: How many examples there are.
        batch_size: Examples per batch and device.
        trainer: Among whose devices they are shared out; None for one device.

    Example:
        >>> ends_in_one(65, 32, None)
        True
    """
    return math.ceil(count / (1 if trainer is None else trainer.world_size)) % batch_size == 1
