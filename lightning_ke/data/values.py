"""Images and a number for each, from a table: regression."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_ke.data.base import ImageDataModule
from lightning_ke.data.decode import DataNotFoundError, to_memory
from lightning_ke.extras import import_extra


class ImageValueDataModule(ImageDataModule):
    """Images and the values to be foretold from them, named by ``ROOT/train.csv``, ``ROOT/val.csv``, ``ROOT/test.csv``.

    The first column of a table is the image's path, relative to `root`; the others are its values, with their names in
    the first row.

    Args:
        root: The folder that holds the tables.
        columns: Names of the values to be foretold; None for all columns but the first.
        image_size: Side of the images that the network sees, in pixels.
        **options: Further options of `ImageDataModule`.

    Raises:
        DataNotFoundError: From `setup`, if a table or an image is not there.
        ValueError: From `setup`, if a table has no such column, or a value is no number.
    """

    def __init__(
        self, root: str | Path, *, columns: Sequence[str] | None = None, image_size: int = 224, **options: Any
    ) -> None:
        super().__init__(image_size=image_size, **options)
        self.root = Path(root)
        self.columns = None if columns is None else list(columns)

    @property
    def num_classes(self) -> int:
        """Number of values for each image."""
        return len(self._table("train")[0])

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Read one part into memory.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Images, and float32 values of shape (N, values).
        """
        _, files, values = self._table(part)
        open_image = import_extra("PIL.Image", "app").open
        shrink = to_memory(self.memory_side(part))
        images = []
        try:
            for file in files:
                with open_image(self.root / file) as image:
                    images.append(shrink(image))
        except FileNotFoundError as error:
            raise DataNotFoundError(
                f"Expected the images of {part}.csv below {str(self.root)!r}, but {error.filename!r} is not there. Put "
                "it there, or take its line out of the table."
            ) from error
        return images, torch.from_numpy(np.array(values, dtype=np.float32))

    def _table(self, part: str) -> tuple[list[str], list[str], list[list[float]]]:
        """Names of the values, files, and the values of each."""
        path = self.root / f"{part}.csv"
        try:
            rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        except FileNotFoundError as error:
            raise DataNotFoundError(
                f"Expected a table in {str(path)!r}, but there is none. Write one line for each image: its path, then "
                "its values; the first line names the columns."
            ) from error
        header = rows[0][1:]
        names = header if self.columns is None else self.columns
        if unknown := set(names) - set(header):
            raise ValueError(
                f"Expected {str(path)!r} to have the column {min(unknown)!r}, but it has {', '.join(header) or 'none'}."
            )
        places = [header.index(name) + 1 for name in names]
        try:
            values = [[float(row[place]) for place in places] for row in rows[1:]]
        except (ValueError, IndexError) as error:
            raise ValueError(f"Expected numbers in every line of {str(path)!r}, but {error}.") from error
        return names, [row[0] for row in rows[1:]], values
