"""Small image sets, decoded once into memory, and what is done to them on the way to the network.

Every image of a training batch gets its own random crop and flip. They are drawn from torch's global RNG, a fixed
number of draws a batch, so that whoever restores that RNG continues a run exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

_TRIES = 10  # how often a crop is drawn before the largest central one is taken, as in torchvision


class Crop(Protocol):
    """Cuts images of any size into one batch."""

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Cut a batch.

        Args:
            images: uint8 tensors of shape (H, W, C), sizes may differ.

        Returns:
            uint8 tensor of shape (N, C, S, S).
        """


@dataclass(frozen=True)
class RandomCrop:
    """A random part of each image, resized, and half of them mirrored (RandomResizedCrop and RandomHorizontalFlip).

    Args:
        size: Side of the result, in pixels.
        scale: Smallest and largest share of the image's area.
        ratio: Smallest and largest ratio of width to height.
        flip: Whether half of the images are mirrored.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Cut a batch, each image at its own place."""
        sizes = torch.tensor([image.shape[:2] for image in images])
        boxes = self.boxes(sizes).tolist()
        mirrored = torch.rand(len(images)) < 0.5
        batch = torch.stack([_resize(_cut(image, *box), self.size) for image, box in zip(images, boxes, strict=True)])
        return torch.where(mirrored[:, None, None, None], batch.flip(3), batch) if self.flip else batch

    def boxes(self, sizes: Tensor) -> Tensor:
        """Draw a box for each image.

        Args:
            sizes: int64 tensor of shape (N, 2), heights and widths.

        Returns:
            int64 tensor of shape (N, 4): top, left, height, width.
        """
        draws = torch.rand(len(sizes), 2 * _TRIES + 2)
        share = self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, :_TRIES]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * draws[:, _TRIES:-2])
        area = sizes.prod(1, keepdim=True) * share
        # Shape (N, tries, 2): heights and widths as drawn; the first box that lies in its image is taken.
        drawn = torch.stack([area / ratio, area * ratio], dim=2).sqrt().round().long()
        fits = ((drawn > 0) & (drawn <= sizes[:, None])).all(2)
        first = drawn[torch.arange(len(sizes)), fits.byte().argmax(1)]
        box = torch.where(fits.any(1, keepdim=True), first, self._largest(sizes))
        room = sizes - box + 1
        corner = torch.minimum((draws[:, -2:] * room).long(), room - 1)
        central = (sizes - box) // 2
        return torch.cat([torch.where(fits.any(1, keepdim=True), corner, central), box], dim=1)

    def _largest(self, sizes: Tensor) -> Tensor:
        """Height and width of the largest box of an allowed ratio."""
        height, width = sizes[:, 0], sizes[:, 1]
        largest_width = torch.minimum(width, (height * self.ratio[1]).round().long())
        largest_height = torch.minimum(height, (width / self.ratio[0]).round().long())
        return torch.stack([largest_height, largest_width], dim=1)


@dataclass(frozen=True)
class ShiftCrop:
    """Each image padded with black and cut out at a random place, and half of them mirrored (RandomCrop with padding).

    Args:
        size: Side of the result, in pixels; other images are resized to it first.
        padding: How far an image is shifted at most, in pixels.
        flip: Whether half of the images are mirrored.
    """

    size: int
    padding: int = 4
    flip: bool = True

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Cut a batch, each image at its own place."""
        batch = torch.stack([_resize(image, self.size) for image in images])
        corners = torch.randint(2 * self.padding + 1, (len(images), 2))
        mirrored = torch.rand(len(images)) < 0.5
        padded = F.pad(batch, (self.padding,) * 4)
        span = torch.arange(self.size)
        rows, columns = (corners[:, axis, None] + span for axis in (0, 1))
        numbers = torch.arange(len(images))[:, None, None]
        # Advanced indices around a slice put the channels last.
        batch = padded[numbers, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return torch.where(mirrored[:, None, None, None], batch.flip(3), batch) if self.flip else batch


@dataclass(frozen=True)
class CenterCrop:
    """The middle of each image after its shorter side was resized (Resize and CenterCrop).

    Args:
        size: Side of the result, in pixels.
        resize: What the shorter side is resized to first, in pixels, at least `size`.
    """

    size: int
    resize: int

    def __call__(self, images: Sequence[Tensor]) -> Tensor:
        """Cut a batch."""
        return torch.stack([self._middle(image) for image in images])

    def _middle(self, image: Tensor) -> Tensor:
        height, width = image.shape[:2]
        side = min(height, width) * self.size / self.resize
        box = round((height - side) / 2), round((width - side) / 2), round(side), round(side)
        return _resize(_cut(image, *box), self.size)


@dataclass(frozen=True, eq=False)
class ImageSet(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels in memory, handed out as whole normalised batches.

    Args:
        images: uint8 tensors of shape (H, W, C); sizes may differ.
        labels: int64 tensor of shape (N,).
        crop: Cuts the images of a batch to one size.
        mean: Per channel, in units of full intensity.
        std: Per channel, in units of full intensity.
    """

    images: Sequence[Tensor]
    labels: Tensor
    crop: Crop
    mean: Sequence[float]
    std: Sequence[float]
    _scale: Tensor = field(init=False, repr=False)
    _shift: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        std = torch.tensor(self.std).view(-1, 1, 1)
        object.__setattr__(self, "_scale", 1 / (255 * std))
        object.__setattr__(self, "_shift", torch.tensor(self.mean).view(-1, 1, 1) / std)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """A whole batch, which costs a fifth of fetching its images one by one.

        Args:
            indices: Positions of the images.

        Returns:
            float32 images of shape (N, C, S, S) and int64 labels of shape (N,).
        """
        batch = self.crop([self.images[index] for index in indices])
        return batch.float().mul_(self._scale).sub_(self._shift), self.labels[list(indices)]


def as_is(batch: Any) -> Any:
    """Collate what `ImageSet` has already made a batch of.

    Args:
        batch: Images and labels.
    """
    return batch


def _cut(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return image[top : top + height, left : left + width]


def _resize(image: Tensor, size: int) -> Tensor:
    """A (H, W, C) image as (C, size, size); its layout in memory is the one that torch resizes fastest."""
    moved = image.permute(2, 0, 1)
    if image.shape[:2] == (size, size):
        return moved
    return F.interpolate(moved.unsqueeze(0), (size, size), mode="bilinear", antialias=True).squeeze(0)
