"""Any text file, character by character."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_ke.arguments import whole
from lightning_ke.data.decode import DataNotFoundError

Windows = tuple[Tensor, Tensor]


class TextDataModule(LightningDataModule):
    """Windows of a text file and, for each character in them, the next one.

    The text is cut once: its first part is for training, the next for validation, the last for testing. Training
    windows begin at random places; validation and test windows lie end to end.

    Args:
        file: A UTF-8 text.
        length: Characters of a window.
        batch_size: Windows in a batch.
        shares: Shares of the text for training and validation; the rest is for testing.
        least_count: Characters that are rarer than this in the training text are all taken for one unknown character.
        num_workers: Worker processes per loader.

    Raises:
        DataNotFoundError: When the text is read, if the file is not there.
        ValueError: If an argument is out of range, or (when the text is read) it is no UTF-8, no character in it comes
            `least_count` times, or a part has no whole window.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        length: int = 128,
        batch_size: int = 32,
        shares: Sequence[float] = (0.9, 0.05),
        least_count: int = 2,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.file = Path(file)
        self.length = whole("length", length, least=1)
        self.batch_size = whole("batch_size", batch_size, least=1)
        self.least_count = whole("least_count", least_count, least=1)
        self.num_workers = whole("num_workers", num_workers, least=0)
        train, val = shares if len(shares) == 2 else (0, 0)
        if not (min(train, val) > 0 and train + val < 1):
            raise ValueError(
                f"Expected argument `shares` to be two shares that leave a third, but got {tuple(shares)}. Give for "
                "example [0.9, 0.05]."
            )
        self.shares = (train, val)

    @cached_property
    def _parts(self) -> tuple[list[str], dict[str, Tensor]]:
        """The alphabet, with the unknown character first, and the numbers of the characters of each part."""
        if not self.file.is_file():
            raise DataNotFoundError(f"Expected a text in {str(self.file)!r}, but there is no such file. Put one there.")
        try:
            text = self.file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected {str(self.file)!r} to be a UTF-8 text, but it is not: {error}. Save it as UTF-8."
            ) from error
        points = torch.tensor([ord(character) for character in text])
        ends = [round(len(points) * share) for share in (self.shares[0], sum(self.shares))]
        train, val, test = torch.tensor_split(points, ends)
        known, counts = torch.unique(train, return_counts=True)
        known = known[counts >= self.least_count]
        if len(known) == 0 < len(train):
            raise ValueError(
                f"Expected a character that comes {self.least_count} times (argument `least_count`) in the training "
                f"part of {str(self.file)!r}, but there is none. Lower it, or give a longer text."
            )
        parts = {"train": train, "val": val, "test": test}
        for name, part in parts.items():
            if len(part) <= self.length:
                raise ValueError(
                    f"Expected the {name} part of the text to be longer than a window of {self.length} characters, "
                    f"but it has {len(part)}. Give a longer text, or a shorter `length`."
                )
            place = torch.searchsorted(known, part).clamp(max=len(known) - 1)
            parts[name] = torch.where(known[place] == part, place + 1, 0)
        return ["\N{REPLACEMENT CHARACTER}", *map(chr, known.tolist())], parts

    @property
    def alphabet(self) -> list[str]:
        """The characters by number; number 0 stands for all that are unknown."""
        return self._parts[0]

    @property
    def num_classes(self) -> int:
        """Number of different characters."""
        return len(self.alphabet)

    @property
    def example_input(self) -> Tensor:
        """Two windows, for tracing a network."""
        return torch.zeros(2, self.length, dtype=torch.long)

    def setup(self, stage: str) -> None:
        """Read the text.

        Args:
            stage: Any.
        """
        assert self._parts

    def train_dataloader(self) -> DataLoader[Windows]:
        """As many windows from random places as lie end to end in the training text."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Windows]:
        """The windows of the validation text."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Windows]:
        """The windows of the test text."""
        return self._loader("test")

    def _loader(self, part: str) -> DataLoader[Windows]:
        windows = _Windows(self._parts[1][part], self.length, anywhere=part == "train")
        return DataLoader(windows, self.batch_size, num_workers=self.num_workers)


class _Windows(Dataset[Windows]):
    """Windows that lie end to end, or as many from random places."""

    def __init__(self, characters: Tensor, length: int, *, anywhere: bool) -> None:
        self._characters = characters
        self._length = length
        self._anywhere = anywhere

    def __len__(self) -> int:
        return (len(self._characters) - 1) // self._length

    def __getitem__(self, index: int) -> Windows:
        start = index * self._length
        if self._anywhere:
            # The ranks of a training may share torch's state: their windows are different ones all the same.
            room = len(self._characters) - self._length
            start = (start + int(torch.randint(room, ()))) % room
        window = self._characters[start : start + self._length + 1]
        return window[:-1], window[1:]
