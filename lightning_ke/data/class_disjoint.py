"""Image sets for metric learning: the test classes are others than those that were trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler

from lightning_ke.data.base import ImageDataModule, Loader
from lightning_ke.data.decode import DataNotFoundError, ListedImages, Undecoded, to_memory
from lightning_ke.data.flowers102 import Flowers102DataModule
from lightning_ke.data.images import as_is
from lightning_ke.extras import import_extra


class ClassDisjointDataModule(ImageDataModule, ABC):
    """The first classes for training, the last for testing; in between, some of the training classes for validation.

    Published results choose on the test classes; here the last `val_classes` of the training classes are held out, so
    that the test classes choose nothing.

    Args:
        train_classes: Number of classes that are not for testing; None for half of them, as in the literature.
        val_classes: How many of them, the last ones, are held out for validation; None for a fifth.
        images_per_class: Training images of a class in a batch, which is filled with as many classes as fit.
        **options: Further options of `ImageDataModule`.

    Raises:
        ValueError: If the numbers do not fit together, or from `setup` if there are too few classes.
    """

    #: Number of classes in all.
    total_classes: int

    def __init__(
        self,
        *,
        train_classes: int | None = None,
        val_classes: int | None = None,
        images_per_class: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        seen = self.total_classes // 2 if train_classes is None else train_classes
        held_out = seen // 5 if val_classes is None else val_classes
        if not 0 < held_out < seen < self.total_classes:
            raise ValueError(
                f"Expected arguments `val_classes` < `train_classes` < {self.total_classes} (all classes), but got "
                f"{held_out} and {seen}. Leave both out for the usual halves."
            )
        if images_per_class < 2 or self.batch_size % images_per_class:
            raise ValueError(
                f"Expected argument `images_per_class` to be at least 2 and to divide `batch_size`, "
                f"{self.batch_size}, but got {images_per_class}. Give 4, and a multiple of it as `batch_size`."
            )
        self.images_per_class = images_per_class
        self._first = {"train": 0, "val": seen - held_out, "test": seen}
        self._last = {"train": seen - held_out, "val": seen, "test": self.total_classes}

    @property
    def num_classes(self) -> int:
        """Number of classes that are trained on."""
        return self._last["train"]

    @abstractmethod
    def read_all(self, side: int) -> tuple[Sequence[Tensor], Tensor]:
        """Read all images of all classes.

        Args:
            side: What the shorter side is reduced to, in pixels.

        Returns:
            uint8 images of shape (H, W, C) each, and int64 labels of shape (N,), from 0.
        """

    @cached_property
    def _all(self) -> tuple[Sequence[Tensor], Tensor]:
        return self.read_all(max(self.memory_size, self.eval_resize))

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """The images of one part's classes.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        images, labels = self._all
        mine = (labels >= self._first[part]) & (labels < self._last[part])
        return [images[index] for index in mine.nonzero().flatten().tolist()], labels[mine]

    def train_dataloader(self) -> Loader:
        """Batches of several images of each of several classes."""
        images = self._sets["train"]
        batches = SeveralPerClass(SequentialSampler(images), images.labels, self.images_per_class, self.batch_size)
        return DataLoader(images, batch_sampler=batches, num_workers=self.num_workers, collate_fn=as_is)


class SeveralPerClass(BatchSampler):
    """Batches of the same number of examples of each of several classes.

    Drawn by a generator that is seeded once an epoch from torch's global one; with replacement only where a class has
    too few examples. Under DDP each rank draws from the positions of its own.

    Args:
        sampler: Yields the positions to draw from, in any order; under DDP Lightning puts the rank's own in its place.
        labels: Class of each position.
        per_class: Examples of a class in a batch.
        batch_size: Examples in a batch.

    Raises:
        ValueError: If there are fewer classes than a batch holds.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 1, 1, 1])
        >>> (batch,) = SeveralPerClass(SequentialSampler(labels), labels, per_class=2, batch_size=4)
        >>> sorted(labels[batch].tolist())
        [0, 0, 1, 1]
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], labels: Tensor, per_class: int, batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=True)
        self._labels = labels
        self._members = _members(torch.arange(len(labels)), labels)
        self._per_class = per_class
        self._classes = batch_size // per_class
        if len(self._members) < self._classes:
            raise ValueError(
                f"Expected at least {self._classes} training classes to fill a batch of {batch_size} with {per_class} "
                f"images each, but there are {len(self._members)}. Lower `batch_size`, or raise `images_per_class`."
            )

    def __len__(self) -> int:
        return max(1, len(self.sampler) // self.batch_size)  # type: ignore[arg-type]  # all samplers here have a length

    def __iter__(self) -> Iterator[list[int]]:
        # Ranks may share torch's state: without their number all would draw the same classes.
        seed = int(torch.randint(2**62, ()).item()) + int(getattr(self.sampler, "rank", 0))
        generator = torch.Generator().manual_seed(seed)
        own = _members(torch.tensor(sorted(self.sampler)), self._labels)
        classes = list(self._members)
        for _ in range(len(self)):
            batch: list[int] = []
            for number in torch.randperm(len(classes), generator=generator)[: self._classes].tolist():
                members = own.get(classes[number], self._members[classes[number]])
                if len(members) >= self._per_class:
                    chosen = torch.randperm(len(members), generator=generator)[: self._per_class]
                else:
                    chosen = torch.randint(len(members), (self._per_class,), generator=generator)
                batch += members[chosen].tolist()
            yield batch


def _members(positions: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """Those of some positions that each class has, classes ascending."""
    found = labels[positions]
    return {label: positions[found == label] for label in sorted(set(found.tolist()))}


class FlowersRetrievalDataModule(ClassDisjointDataModule):
    """Flowers-102 for metric learning: classes 0-50 are seen, 51-101 (4,696 images) are for testing.

    Args:
        root: As for `Flowers102DataModule`.
        download: As for `Flowers102DataModule`.
        image_size: Side of the images that the network sees, in pixels.
        **options: Further options of `ClassDisjointDataModule`.
    """

    total_classes = 102

    def __init__(self, root: str | Path, *, download: bool = False, image_size: int = 224, **options: Any) -> None:
        super().__init__(image_size=image_size, **options)
        self.root, self.download = Path(root), download

    def prepare_data(self) -> None:
        """Download the images, if that was asked for and they are not there."""
        Flowers102DataModule(self.root, download=self.download).prepare_data()

    def read_all(self, side: int) -> tuple[Sequence[Tensor], Tensor]:
        """All three parts of the official split.

        Args:
            side: What the shorter side is reduced to, in pixels.
        """
        source = Flowers102DataModule(self.root, image_size=self.image_size, memory_size=side, eval_resize=side)
        read = [source.read(part) for part in ("train", "val", "test")]
        return [image for images, _ in read for image in _decoded(images)], torch.cat([labels for _, labels in read])


class CUB200RetrievalDataModule(ClassDisjointDataModule):
    """CUB-200-2011 for metric learning: the first 100 birds are seen, the last 100 are for testing.

    Args:
        root: The folder that holds ``CUB_200_2011/images/CLASS/*.jpg``.
        image_size: Side of the images that the network sees, in pixels.
        **options: Further options of `ClassDisjointDataModule`.

    Raises:
        DataNotFoundError: From `setup`, if the images are not there.

    Source:
        Wah and others: The Caltech-UCSD Birds-200-2011 Dataset.
    """

    total_classes = 200

    def __init__(self, root: str | Path, *, image_size: int = 224, **options: Any) -> None:
        super().__init__(image_size=image_size, **options)
        self.root = Path(root)

    def read_all(self, side: int) -> tuple[Sequence[Tensor], Tensor]:
        """All images; the classes' folders begin with their numbers.

        Args:
            side: What the shorter side is reduced to, in pixels.
        """
        folder = self.root / "CUB_200_2011" / "images"
        datasets = import_extra("torchvision.datasets", "app")
        try:
            birds = datasets.ImageFolder(folder)
            if len(birds.classes) != self.total_classes:  # a label is the folder's place among all
                raise FileNotFoundError(f"{len(birds.classes)} of {self.total_classes} folders")
            return _read([(Path(file), label) for file, label in birds.samples], side)
        except FileNotFoundError as error:
            raise DataNotFoundError(
                f"Expected CUB-200-2011 in {str(folder)!r}, but it is not (completely) there. Unpack "
                "CUB_200_2011.tgz from https://www.vision.caltech.edu/datasets/cub_200_2011/ into the root folder."
            ) from error


class CarsRetrievalDataModule(ClassDisjointDataModule):
    """Stanford Cars for metric learning: the first 98 models are seen, the last 98 are for testing.

    Args:
        root: The folder that holds ``cars_annos.mat`` and ``car_ims/``, all images of both official parts.
        image_size: Side of the images that the network sees, in pixels.
        **options: Further options of `ClassDisjointDataModule`.

    Raises:
        DataNotFoundError: From `setup`, if the images are not there.

    Source:
        Krause and others: 3D Object Representations for Fine-Grained Categorization (2013).
    """

    total_classes = 196

    def __init__(self, root: str | Path, *, image_size: int = 224, **options: Any) -> None:
        super().__init__(image_size=image_size, **options)
        self.root = Path(root)

    def read_all(self, side: int) -> tuple[Sequence[Tensor], Tensor]:
        """All images that the annotations name.

        Args:
            side: What the shorter side is reduced to, in pixels.
        """
        table = self.root / "cars_annos.mat"
        try:
            with table.open("rb") as stream:
                rows = import_extra("scipy.io", "app").loadmat(stream, squeeze_me=True)["annotations"]
            files = [(self.root / str(row["relative_im_path"]), int(row["class"]) - 1) for row in rows]
            return _read(files, side)
        except FileNotFoundError as error:
            raise DataNotFoundError(
                f"Expected Stanford Cars in {str(self.root)!r}, but not all of it is there: {error} Put "
                "cars_annos.mat and the unpacked folder car_ims there, both from "
                "https://ai.stanford.edu/~jkrause/cars/car_dataset.html."
            ) from error


class OmniglotDataModule(ClassDisjointDataModule):
    """Omniglot for metric learning: the 964 background characters are seen, the 659 evaluation ones are for testing.

    Args:
        root: The folder that holds ``omniglot-py/images_background`` and ``omniglot-py/images_evaluation``, as
            ``torchvision.datasets.Omniglot`` reads them.
        download: Whether torchvision may download them into `root`.
        image_size: Side of the images that the network sees, in pixels.
        **options: Further options of `ClassDisjointDataModule`.

    Raises:
        DataNotFoundError: From `setup`, if the images are not there.

    Source:
        Lake, Salakhutdinov, Tenenbaum: Human-level concept learning through probabilistic program induction (2015).
    """

    total_classes = 1623

    def __init__(
        self,
        root: str | Path,
        *,
        download: bool = False,
        image_size: int = 28,
        train_classes: int = 964,
        flip: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(image_size=image_size, train_classes=train_classes, flip=flip, **options)
        self.root, self.download = Path(root), download

    def prepare_data(self) -> None:
        """Download the images, if that was asked for and they are not there."""
        if self.download:
            for background in (True, False):
                import_extra("torchvision.datasets", "app").Omniglot(self.root, background, download=True)

    def read_all(self, side: int) -> tuple[Sequence[Tensor], Tensor]:
        """The characters of both parts.

        Args:
            side: What the shorter side is reduced to, in pixels.
        """
        datasets = import_extra("torchvision.datasets", "app")
        images: list[Tensor] = []
        labels: list[Tensor] = []
        seen = 0
        for part in ("images_background", "images_evaluation"):
            folder = self.root / datasets.Omniglot.folder / part
            files = sorted(folder.glob("*/*/*.png"))
            if not files:
                raise DataNotFoundError(
                    f"Expected Omniglot in {str(folder)!r} as ALPHABET/CHARACTER/*.png, but it is not there. Unpack "
                    f"{part}.zip from https://github.com/brendenlake/omniglot there, or set `download=True`."
                )
            characters = {name: number for number, name in enumerate(sorted({file.parent for file in files}), seen)}
            read = _read([(file, characters[file.parent]) for file in files], side)
            images += read[0]
            labels.append(read[1])
            seen += len(characters)
            if part == "images_background" and len(characters) != self._last["val"]:
                raise ValueError(
                    f"Expected {self._last['val']} background characters, but there are {len(characters)}. Give "
                    f"`train_classes={len(characters)}` for a part of Omniglot."
                )
        return images, torch.cat(labels)


def _read(files: Sequence[tuple[Path, int]], side: int) -> tuple[list[Tensor], Tensor]:
    """Decode image files."""
    paths, labels = [file for file, _ in files], [label for _, label in files]
    listed = ListedImages(paths, labels, to_memory(side))
    return Undecoded(listed, range(len(listed))).decode(), torch.tensor(labels)


def _decoded(images: Sequence[Tensor]) -> Sequence[Tensor]:
    return images.decode() if isinstance(images, Undecoded) else images
