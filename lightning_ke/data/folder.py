"""Any folder of images: one folder per part, in it one per class."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.data.decode import DataNotFoundError, LabelledImages, ListedImages, to_memory
from lightning_ke.data.pictures import PictureDataModule, check_share

# What torchvision's ImageFolder takes for images.
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def images_below(folder: Path) -> list[Path]:
    """The images in a folder at any depth, in ImageFolder's order; without hidden ones.

    What file managers and notebooks leave behind (`._0.jpg`, `.ipynb_checkpoints`) is nobody's image.

    Args:
        folder: The folder.
    """
    return [
        Path(where) / name
        for where, _, names in sorted(os.walk(folder, followlinks=True))
        if not any(part.startswith(".") for part in Path(where).relative_to(folder).parts)
        for name in sorted(names)
        if name.lower().endswith(_ENDINGS) and not name.startswith(".")
    ]


class FolderDataModule(PictureDataModule):
    """Images in ``ROOT/train/CLASS/``, ``ROOT/val/CLASS/`` and ``ROOT/test/CLASS/``, as ImageFolder reads them.

    Files and folders whose names begin with a dot are left alone.

    Args:
        root: The folder that holds ``train``, ``val`` and ``test``.
        val_share: Share of the training images of each class that are held out for validation; None if there is a
            folder ``val``.
        **options: Further options of `PictureDataModule`.

    Raises:
        DataNotFoundError: From `setup`, if a part or its images are not there.
        ValueError: From `setup`, if a part has other classes than ``train``, or there is a folder ``val`` and a
            `val_share`, too.
    """

    title: ClassVar[str] = "this folder"
    folder: ClassVar[str] = ""
    origin: ClassVar[str] = "Put your images there."
    downloads: ClassVar[bool] = False

    def __init__(self, root: str | Path, *, val_share: float | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        check_share(val_share)
        self.val_share = val_share

    def setup(self, stage: str) -> None:
        """Read the parts that a stage needs.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        """
        if self.val_share is not None and (self.root / "val").is_dir():
            raise ValueError(
                f"Expected argument `val_share` to be None, because {str(self.root / 'val')!r} is there, "
                f"but got {self.val_share}. Leave it out, or move that folder away."
            )
        super().setup(stage)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        return self._classes("train")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
            transform: From an image to a tensor.
            download: Not possible.
        """
        if different := set(self._classes(part)) ^ set(self.classes):
            raise ValueError(
                f"Expected {str(self.root / part)!r} to have the classes of {str(self.root / 'train')!r}, but only one "
                f"of them has {min(different)!r}. Give each part a folder of the same name for every class."
            )
        found = [images_below(self.root / part / name) for name in self.classes]
        if empty := [name for name, files in zip(self.classes, found, strict=True) if not files]:
            raise DataNotFoundError(
                f"Expected images in every folder of {str(self.root / part)!r}, but {empty[0]!r} has none whose name "
                f"ends with {', '.join(_ENDINGS)}. Put images there, or remove the folder in every part."
            )
        targets = [label for label, files in enumerate(found) for _ in files]
        return ListedImages(list(chain(*found)), targets, transform or to_memory(self.image_size))

    def _classes(self, part: str) -> list[str]:
        folder = self.root / part
        entries = folder.iterdir() if folder.is_dir() else ()
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        if not classes:
            raise self._not_found(part)
        return classes

    def _not_found(self, part: str) -> DataNotFoundError:
        hint = " Or set `val_share=0.1` to hold out training images." if part == "val" else ""
        return DataNotFoundError(
            f"Expected images in {str(self.root / part / 'CLASS')!r} for every class, but they are not (all) there. "
            f"Put the {part} images there, one folder for each class.{hint}"
        )
