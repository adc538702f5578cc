"""What all sets of image files share: where they lie, which images are held out, in memory or decoded as needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_ke.data.base import ImageDataModule
from lightning_ke.data.decode import DataNotFoundError, LabelledImages, Undecoded, labels_of, to_memory
from lightning_ke.data.selection import hold_out

_MEMORY = 4 * 2**30  # bytes of images that are decoded at once
_RATIO = 1.4  # width to height of a usual photograph
_TEST_SEED = 0  # what is tested does not depend on the user's seed


class PictureDataModule(ImageDataModule):
    """Images in files, with the split that belongs to them.

    Where a set has no validation split, a share of every class of its training images is held out for it; what is
    tested stays untouched. Sets that fit into memory are decoded once, larger ones as they are needed.

    Args:
        root: The folder that holds the set's own folder (`folder`).
        image_size: Side of the images that the network sees, in pixels.
        download: Whether torchvision may download the images into `root`.
        val_share: Share of the training images that are held out for validation; only for sets without a validation
            split, None for their default.
        lazy: Whether images are decoded each time they are needed (give `num_workers` then) instead of once into
            memory; None decides by their number and size, at 4 GiB.
        **options: Further options of `ImageDataModule`.

    Raises:
        ValueError: If `download` is asked for where torchvision cannot, or `val_share` where there is a validation
            split.
        DataNotFoundError: From `prepare_data` or `setup`, if the images are not there.
    """

    #: Name of the set.
    title: ClassVar[str]
    #: Folder below `root` that holds it.
    folder: ClassVar[str]
    #: What to download, from where, and how to lay it out.
    origin: ClassVar[str]
    #: Number of classes of the whole set.
    classes_in_all: ClassVar[int]
    #: Whether torchvision can download it.
    downloads: ClassVar[bool] = True
    #: Share of the training images that are held out for validation; None if the set has a validation split.
    held_out: ClassVar[float | None] = None
    #: Share of all images that are held out for testing; None if the set has a test split.
    held_out_for_test: ClassVar[float | None] = None

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: int = 224,
        download: bool = False,
        val_share: float | None = None,
        lazy: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(image_size=image_size, **options)
        if download and not self.downloads:
            raise ValueError(
                f"Expected argument `download` to be False for {self.title}, which torchvision cannot download. "
                f"{self.origin.format(folder=str(Path(root) / self.folder))}"
            )
        if val_share is not None and self.held_out is None:
            raise ValueError(
                f"Expected argument `val_share` to be None for {self.title}, which has a validation split, but got "
                f"{val_share}."
            )
        check_share(val_share)
        self.root = Path(root).expanduser()
        self.download = download
        self.val_share = self.held_out if val_share is None else val_share
        self.lazy = lazy
        self._found: dict[str, tuple[str, Tensor | None]] = {}

    @abstractmethod
    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part of the set as it is published, or raise FileNotFoundError or RuntimeError.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``, of those that the set has.
            transform: From an image to a tensor.
            download: Whether torchvision may download it.
        """

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.classes_in_all

    def prepare_data(self) -> None:
        """Download the images, if that was asked for and they are not there."""
        if self.download:
            self._opened("train", download=True)

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Find one part; its images are decoded later.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        transform = to_memory(self.memory_side(part))
        published, positions = self._positions(part)
        dataset = self._opened(published, transform)
        labels = labels_of(dataset)
        if positions is None:
            return Undecoded(dataset, range(len(dataset))), labels
        return Undecoded(dataset, positions.tolist()), labels[positions]

    def find_test(self) -> None:
        """Raise what reading the test images would, before a long training; no image is decoded."""
        self.read("test")

    def in_memory(self, part: str, count: int) -> bool:
        """Whether a part is decoded once into memory.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
            count: How many images of it are used.
        """
        if self.lazy is not None:
            return not self.lazy
        size = count * 3 * _RATIO * self.memory_side(part) ** 2
        if size > _MEMORY:
            rank_zero_info(
                f"{self.title}: {count:,} images of about {self.memory_side(part)} px would take "
                f"{size / 2**30:.0f} GiB of memory; they are decoded as they are needed by {self.num_workers} workers."
            )
        return size <= _MEMORY

    def _positions(self, part: str) -> tuple[str, Tensor | None]:
        """Which published part, and which of its images, a part is; found and told of once."""
        if part not in self._found:
            self._found[part] = self._find_positions(part)
        return self._found[part]

    def _find_positions(self, part: str) -> tuple[str, Tensor | None]:
        """Which published part, and which of its images, a part is; None for all of them."""
        if self.held_out_for_test is not None:
            labels = labels_of(self._opened("train"))
            stays, tested = hold_out(labels, self.held_out_for_test, _TEST_SEED)
            if part == "test":
                return "train", tested
        elif part == "test" or self.val_share is None:
            return part, None
        else:
            labels = labels_of(self._opened("train"))
            stays = labels.new_tensor(range(len(labels)))
        assert self.val_share is not None
        trained, validated = hold_out(labels[stays], self.val_share, self.seed)
        if part == "train":
            rank_zero_info(
                f"{self.title} has no validation split: {len(validated):,} of {len(stays):,} training images "
                f"({self.val_share:.0%} of each class, seed {self.seed}) are held out for validation."
            )
        return "train", stays[trained if part == "train" else validated]

    def _opened(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        try:
            return self.open(part, transform, download=download)
        except (FileNotFoundError, NotADirectoryError, RuntimeError) as error:
            if isinstance(error, DataNotFoundError):
                raise
            folder = self.root / self.folder
            hint = " Or set `download=True`." if self.downloads and not download else ""
            raise DataNotFoundError(
                f"Expected {self.title} in {str(folder)!r}, but it is not (completely) there. "
                f"{self.origin.format(folder=str(folder))}{hint}"
            ) from error


def check_share(val_share: float | None) -> None:
    """Refuse what is no share of the training images.

    Args:
        val_share: Share that is held out for validation, or None.

    Raises:
        ValueError: If it is out of range.
    """
    if val_share is not None and not 0 < val_share < 1:
        raise ValueError(f"Expected argument `val_share` to be in (0, 1), but got {val_share}. Give 0.1, say.")
