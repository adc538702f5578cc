"""Photographs turned by a known angle: which way is up?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_ke.data.base import ImageDataModule, ends_in_one
from lightning_ke.data.images import ImageSet, as_is
from lightning_ke.keyed_rng import keyed_generator

Angles = tuple[Tensor, Tensor]


class HeadingDataModule(LightningDataModule):
    """The images of another data module, each turned by an angle that is to be foretold, cut to a disc.

    The simplest of navigation's questions: by how much has the camera been turned? Outside of the disc the image is
    black (the mean), so that no corner gives the angle away. Training angles are drawn anew each time; each validation
    and test image has one of its own that never changes.

    Args:
        images: Where the images come from; its crops apply before the turn, but for mirroring, which it must not do.

    Raises:
        ValueError: If the images are mirrored, or their labels, which nobody looks at, are to be wrong.
    """

    #: One angle.
    num_classes = 1

    def __init__(self, images: ImageDataModule) -> None:
        super().__init__()
        if images.flip:
            raise ValueError(
                "Expected argument `images` not to mirror its images, because a mirrored one is turned the other way "
                "round, but its `flip` is True. Build it with `flip=False`."
            )
        if images.label_noise:
            raise ValueError(
                f"Expected argument `images` to have no wrong labels, because an angle takes their place, but its "
                f"`label_noise` is {images.label_noise}. Leave it out."
            )
        self.images = images
        self.in_channels = images.in_channels
        self._sets: dict[str, _Turned] = {}

    @property
    def example_input(self) -> Tensor:
        """Two images, for tracing a network."""
        return torch.zeros(2, self.in_channels, self.images.image_size, self.images.image_size)

    def prepare_data(self) -> None:
        """Download the images, if that was asked for."""
        self.images.prepare_data()

    def find_test(self) -> None:
        """Raise what reading the test images would, before a long training; no image is decoded."""
        self.images.find_test()

    def setup(self, stage: str) -> None:
        """Read the images that a stage needs.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        """
        self.images.setup(stage)
        for part, images in self.images._sets.items():
            fixed = None
            if part != "train":
                fixed = torch.rand(len(images), generator=keyed_generator("heading", part)) * 2 * math.pi
            self._sets[part] = _Turned(images, fixed)

    def train_dataloader(self) -> DataLoader[Angles]:
        """The training images in random order, each turned by a new angle."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Angles]:
        """The validation images."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Angles]:
        """The test images."""
        return self._loader("test")

    def _loader(self, part: str) -> DataLoader[Any]:
        turned, source = self._sets[part], self.images
        train = part == "train"
        return DataLoader(
            turned,
            source.batch_size,
            shuffle=train,
            num_workers=source.num_workers,
            collate_fn=as_is,
            drop_last=train and ends_in_one(len(turned), source.batch_size, self.trainer),
        )


@dataclass(frozen=True, eq=False)
class _Turned(Dataset[Angles]):
    """Images turned by fixed angles, or by a new one each time."""

    images: ImageSet
    angles: Tensor | None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Angles:
        images, angles = self.__getitems__([index])
        return images[0], angles[0]

    def __getitems__(self, indices: Sequence[int]) -> Angles:
        images, _ = self.images.__getitems__(indices)
        angles = torch.rand(len(indices)) * 2 * math.pi if self.angles is None else self.angles[list(indices)]
        return turn(images, angles), angles


def turn(images: Tensor, angles: Tensor) -> Tensor:
    """Turn images about their middle and keep the disc that has never left them.

    Args:
        images: Float tensor of shape (N, C, S, S).
        angles: Of shape (N,), in radians, counter-clockwise.

    Example:
        >>> image = torch.zeros(1, 1, 9, 9)
        >>> image[0, 0, 1, 4] = 1  # above the middle
        >>> turn(image, torch.tensor([math.pi / 2]))[0, 0, 4, 1].round().item()  # left of it
        1.0
    """
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    affine = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned * (grid.square().sum(3) <= 1).unsqueeze(1)
