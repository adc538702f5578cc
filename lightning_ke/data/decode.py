"""Image files as tensors: decoded once, in threads, into memory, or each time they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


class DataNotFoundError(FileNotFoundError):
    """The images are not where they were expected; the message says where to get them and where to put them."""


class LabelledImages(Protocol):
    """What torchvision's image data sets are."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class ListedImages:
    """A data set that is a list of files.

    Args:
        files: One path per image.
        targets: One class per image, from 0.
        transform: What is done to each image.
    """

    files: Sequence[Path]
    targets: Sequence[int]
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(open_image(self.files[index])), self.targets[index]


@dataclass(frozen=True)
class Undecoded(Sequence[Tensor]):
    """Images that are decoded each time they are asked for.

    Args:
        dataset: Pairs of image tensor and label.
        positions: Which of them, in which order.
    """

    dataset: LabelledImages
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Undecoded: ...
    def __getitem__(self, index: int | slice) -> Tensor | Undecoded:
        """One uint8 image of shape (H, W, C), or some, undecoded."""
        if isinstance(index, slice):
            return Undecoded(self.dataset, self.positions[index])
        position = self.positions[index]
        try:
            image: Tensor = self.dataset[position][0]
        except OSError as error:
            raise DataNotFoundError(
                f"Expected image {self._name(position)} to be readable, but it is not: {error.strerror or error}. "
                "Replace it, or download or unpack the images again."
            ) from error
        return image

    def _name(self, position: int) -> str:
        """What to call an image of the data set."""
        # Ours, ImageFolder's, and what others of torchvision's have.
        for attribute in ("files", "samples", "_image_files", "_images"):
            if hasattr(self.dataset, attribute):
                entry = getattr(self.dataset, attribute)[position]
                return repr(str(entry[0] if isinstance(entry, tuple) else entry))
        return f"number {position} of the list"

    def choose(self, chosen: Tensor) -> Undecoded:
        """Some of the images.

        Args:
            chosen: Their positions, int64 tensor of shape (M,).
        """
        return Undecoded(self.dataset, [self.positions[index] for index in chosen.tolist()])

    def decode(self) -> list[Tensor]:
        """Decode all images now, in threads."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(self.__getitem__, range(len(self))))


def open_image(path: str | Path) -> Image.Image:
    """Read an image file with the pixels that it holds; torchvision's own loader makes 16 bits white.

    Args:
        path: The file.
    """
    from PIL import Image

    image = Image.open(path)
    with image:
        image.load()
    return image


def to_memory(side: int) -> Callable[[Image.Image], Tensor]:
    """A transform for torchvision's data sets: reduce an image and make a tensor of it.

    Args:
        side: What the shorter side is reduced to, in pixels; smaller images are kept as they are.

    Returns:
        A function from an image to a uint8 tensor of shape (H, W, 3). Of 16 bits it keeps the upper eight; it raises
        OSError for numbers without a known range.
    """

    def transform(image: Image.Image) -> Tensor:
        shorter = min(image.size)
        image = _of_bytes(image).convert("RGB")
        if shorter > side:
            width, height = (max(side, round(length * side / shorter)) for length in image.size)
            image = image.resize((width, height), resample=2)  # 2: bilinear, over the whole area of a pixel
        return torch.from_numpy(np.array(image))

    return transform


def _of_bytes(image: Image.Image) -> Image.Image:
    """An image with numbers from 0 to 255; Pillow would cut larger ones off."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):  # older Pillows say "I"
        from PIL import Image

        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise OSError(f"nothing says what range its numbers (mode {image.mode}) have; save it with 8 or 16 bits")
    return image


def labels_of(dataset: Any) -> Tensor:
    """The labels of a data set, without decoding its images.

    Args:
        dataset: One of torchvision's, or a `ListedImages`.

    Returns:
        int64 tensor of shape (N,).
    """
    # torchvision's older sets have `targets`, its newer ones only `_labels`.
    return torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset._labels, dtype=torch.int64)
