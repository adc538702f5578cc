"""Images and a number for each, from a table: regression."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_ke.data.base import ImageDataModule
from lightning_ke.data.decode import DataNotFoundError, ListedImages, Undecoded, to_memory


class ImageValueDataModule(ImageDataModule):
    """Images and the values to be foretold from them, named by ``ROOT/train.csv``, ``ROOT/val.csv``, ``ROOT/test.csv``.

    The first column of a table is the image's path, relative to `root`; the others are its values, with their names in
    the first row. Values are found by their names: the tables may have their columns in different orders.

    Args:
        root: The folder that holds the tables.
        columns: Names of the values to be foretold; None for all columns of ``train.csv`` but the first.
        image_size: Side of the images that the network sees, in pixels.
        **options: Further options of `ImageDataModule`, but for `per_class` and `label_noise`: values are no classes.

    Raises:
        DataNotFoundError: From `setup`, if a table or an image is not there.
        ValueError: If an argument is out of range, or (from `setup`) a table is no UTF-8, has no such column, no line,
            or a line without a finite number in each column.
    """

    def __init__(
        self, root: str | Path, *, columns: Sequence[str] | None = None, image_size: int = 224, **options: Any
    ) -> None:
        super().__init__(image_size=image_size, **options)
        self.refuse_class_options("values are no classes")
        if columns is not None and (isinstance(columns, str) or not columns):
            raise ValueError(f"Expected argument `columns` to be a list of names or None, but got {columns!r}.")
        self.root = Path(root)
        self.columns = None if columns is None else list(columns)

    @property
    def num_classes(self) -> int:
        """Number of values for each image."""
        return len(self._names())

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Find one part; its images are decoded later.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.

        Returns:
            Images, and float32 values of shape (N, values).
        """
        rows = self._rows(part)
        header, names = rows[0][1], self._names()
        if unknown := [name for name in names if name not in header[1:]]:
            known = ", ".join(header[1:]) or "none"
            raise ValueError(f"Expected {self._path(part)} to have the column {unknown[0]!r}, but it has {known}.")
        if len(rows) == 1:
            raise ValueError(f"Expected {self._path(part)} to have a line for each image, but it has a header only.")
        places = [header.index(name, 1) for name in names]
        values = [self._values(part, line, row, places) for line, row in rows[1:]]
        files = [self.root / row[0] for _, row in rows[1:]]
        # The values go their own way: the images' list wants whole numbers.
        listed = ListedImages(files, [0] * len(files), to_memory(self.memory_side(part)))
        return Undecoded(listed, range(len(listed))), torch.tensor(values, dtype=torch.float32)

    def find_test(self) -> None:
        """Raise what reading the test images would, before a long training; no image is decoded."""
        self.read("test")

    def _names(self) -> list[str]:
        """Names of the values."""
        if self.columns is not None:
            return self.columns
        header = self._rows("train")[0][1]
        if len(header) < 2:
            raise ValueError(
                f"Expected {self._path('train')} to have columns of values behind the first, separated by commas, but "
                f"its first line is {','.join(header)!r}."
            )
        return header[1:]

    def _values(self, part: str, line: int, row: Sequence[str], places: Sequence[int]) -> list[float]:
        try:
            values = [float(row[place]) for place in places]
        except (ValueError, IndexError):
            values = [math.nan]
        if not all(map(math.isfinite, values)):
            raise ValueError(
                f"Expected a number in every column of {self._path(part)}, but line {line} is {','.join(row)!r}. Fill "
                "it in, or take the line out."
            )
        return values

    def _path(self, part: str) -> str:
        return repr(str(self.root / f"{part}.csv"))

    def _rows(self, part: str) -> list[tuple[int, list[str]]]:
        """The lines of a table that are not empty, the header first, each with its number."""
        try:
            text = (self.root / f"{part}.csv").read_text(encoding="utf-8-sig")  # spreadsheets put a mark before it
        except FileNotFoundError as error:
            raise DataNotFoundError(
                f"Expected a table in {self._path(part)}, but there is none. Write one line for each image: its path, "
                "then its values; the first line names the columns."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected {self._path(part)} to be a UTF-8 text, but it is not: {error}. Save it as UTF-8."
            ) from error
        rows = [(line, row) for line, row in enumerate(csv.reader(text.splitlines()), start=1) if any(row)]
        if not rows:
            raise ValueError(f"Expected {self._path(part)} to name its columns in the first line, but it is empty.")
        return rows
