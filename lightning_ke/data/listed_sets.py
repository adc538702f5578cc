"""Sets of the paper that torchvision does not read: CUB-200-2011, MIT-67, Stanford Dogs, each by its own lists."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.data.decode import LabelledImages, ListedImages, to_memory
from lightning_ke.data.pictures import PictureDataModule
from lightning_ke.extras import import_extra


class _ListedDataModule(PictureDataModule):
    """Opens the files that a list names."""

    downloads: ClassVar[bool] = False
    held_out: ClassVar[float | None] = 0.1

    @abstractmethod
    def listed(self, home: Path, part: str) -> list[tuple[Path, int]]:
        """File and class (from 0) of each image of a part.

        Args:
            home: The set's own folder.
            part: ``"train"`` or ``"test"``.
        """

    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part.

        Args:
            part: ``"train"`` or ``"test"``.
            transform: From an image to a tensor.
            download: Not possible.
        """
        rows = self.listed(self.root / self.folder, part)
        if not rows or not rows[0][0].is_file():
            raise FileNotFoundError(str(rows[0][0] if rows else part))
        files, targets = zip(*rows, strict=True)
        return ListedImages(files, targets, transform or to_memory(self.image_size))


class CUB200DataModule(_ListedDataModule):
    """CUB-200-2011 with its official split: 5,994 images to train and validate on, 5,794 to test, 200 birds.

    There is no validation split: 10 % of the training images of each class are held out for it.

    Source:
        Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset.
    """

    title: ClassVar[str] = "CUB-200-2011"
    folder: ClassVar[str] = "CUB_200_2011"
    origin: ClassVar[str] = (
        "Download CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158 and unpack it, so that {folder} "
        "holds images.txt, train_test_split.txt, image_class_labels.txt and the folder images."
    )
    classes_in_all: ClassVar[int] = 200

    def listed(self, home: Path, part: str) -> list[tuple[Path, int]]:
        """File and class of each image of a part.

        Args:
            home: The folder ``CUB_200_2011``.
            part: ``"train"`` or ``"test"``.
        """
        names, labels, trains = (
            dict(line.split() for line in (home / f"{name}.txt").read_text(encoding="utf-8").splitlines())
            for name in ("images", "image_class_labels", "train_test_split")
        )
        wanted = "1" if part == "train" else "0"
        return [
            (home / "images" / name, int(labels[number]) - 1)
            for number, name in names.items()
            if trains[number] == wanted
        ]


class MIT67DataModule(_ListedDataModule):
    """MIT Indoor-67: 67 kinds of rooms, 5,360 images to train and validate on and 1,340 to test.

    There is no validation split: 10 % of the training images of each class are held out for it.

    Source:
        Quattoni, Torralba: Recognizing Indoor Scenes (CVPR 2009).
    """

    title: ClassVar[str] = "MIT-67"
    folder: ClassVar[str] = "mit67"
    origin: ClassVar[str] = (
        "Download indoorCVPR_09.tar, TrainImages.txt and TestImages.txt from "
        "https://web.mit.edu/torralba/www/indoor.html and put the unpacked folder Images and the lists into {folder}."
    )
    classes_in_all: ClassVar[int] = 67

    def listed(self, home: Path, part: str) -> list[tuple[Path, int]]:
        """File and class of each image of a part.

        Args:
            home: The folder that holds the lists.
            part: ``"train"`` or ``"test"``.
        """
        lists = {name: (home / f"{name}Images.txt").read_text(encoding="utf-8").split() for name in ("Train", "Test")}
        classes = sorted({name.partition("/")[0] for names in lists.values() for name in names})
        label = {name: number for number, name in enumerate(classes)}
        return [(home / "Images" / name, label[name.partition("/")[0]]) for name in lists[part.capitalize()]]


class StanfordDogsDataModule(_ListedDataModule):
    """Stanford Dogs: 120 breeds, 12,000 images to train and validate on and 8,580 to test.

    There is no validation split: 10 % of the training images of each class are held out for it.

    Source:
        Khosla, Jayadevaprakash, Yao, Fei-Fei: Novel Dataset for Fine-Grained Image Categorization (2011).
    """

    title: ClassVar[str] = "Stanford Dogs"
    folder: ClassVar[str] = "stanford-dogs"
    origin: ClassVar[str] = (
        "Download images.tar and lists.tar from http://vision.stanford.edu/aditya86/ImageNetDogs/ and unpack both into "
        "{folder}, so that it holds train_list.mat, test_list.mat and the folder Images."
    )
    classes_in_all: ClassVar[int] = 120

    def listed(self, home: Path, part: str) -> list[tuple[Path, int]]:
        """File and class of each image of a part.

        Args:
            home: The folder that holds the lists.
            part: ``"train"`` or ``"test"``.
        """
        with (home / f"{part}_list.mat").open("rb") as file:
            content = import_extra("scipy.io", "app").loadmat(file, squeeze_me=True)
        return [
            (home / "Images" / str(name), int(label) - 1)
            for name, label in zip(content["file_list"], content["labels"], strict=True)
        ]
