"""Sets that torchvision reads and downloads: FGVC-Aircraft, Oxford Pets, CIFAR-10, CIFAR-100, EuroSAT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.data.decode import LabelledImages
from lightning_ke.data.pictures import PictureDataModule
from lightning_ke.extras import import_extra


class _TorchvisionDataModule(PictureDataModule):
    """Opens a data set class of torchvision's."""

    #: Name of the class in ``torchvision.datasets``.
    dataset: ClassVar[str]
    #: Keyword arguments of the class for each part that is published.
    parts: ClassVar[dict[str, dict[str, Any]]]

    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``, of those that the set has.
            transform: From an image to a tensor.
            download: Whether torchvision may download it.
        """
        make = getattr(import_extra("torchvision.datasets", "app"), self.dataset)
        opened: LabelledImages = make(self.root, transform=transform, download=download, **self.parts[part])
        return opened


class AircraftDataModule(_TorchvisionDataModule):
    """FGVC-Aircraft with its official split: 3,334 training, 3,333 validation, 3,333 test images of 100 variants.

    Source:
        Maji, Kannala, Rahtu, Blaschko, Vedaldi: Fine-Grained Visual Classification of Aircraft (arXiv 1306.5151).
    """

    title: ClassVar[str] = "FGVC-Aircraft"
    folder: ClassVar[str] = "fgvc-aircraft-2013b"
    origin: ClassVar[str] = (
        "Download fgvc-aircraft-2013b.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/ and unpack it, "
        "so that {folder} holds the folder data."
    )
    classes_in_all: ClassVar[int] = 100
    dataset: ClassVar[str] = "FGVCAircraft"
    parts: ClassVar[dict[str, dict[str, Any]]] = {part: {"split": part} for part in ("train", "val", "test")}


class OxfordPetsDataModule(_TorchvisionDataModule):
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, 3,680 images to train and validate on and 3,669 to test.

    There is no validation split: 10 % of the former are held out for it.

    Source:
        Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs (CVPR 2012).
    """

    title: ClassVar[str] = "Oxford-IIIT Pet"
    folder: ClassVar[str] = "oxford-iiit-pet"
    origin: ClassVar[str] = (
        "Download images.tar.gz and annotations.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/pets/ and unpack "
        "both there."
    )
    classes_in_all: ClassVar[int] = 37
    held_out: ClassVar[float | None] = 0.1
    dataset: ClassVar[str] = "OxfordIIITPet"
    parts: ClassVar[dict[str, dict[str, Any]]] = {"train": {"split": "trainval"}, "test": {"split": "test"}}


class EuroSATDataModule(_TorchvisionDataModule):
    """EuroSAT (RGB): 27,000 satellite images of 64 px, 10 kinds of land use.

    There is no official split: 20 % of each class are tested, always the same ones, and 10 % of the others validated.

    Source:
        Helber, Bischke, Dengel, Borth: EuroSAT (arXiv 1709.00029).
    """

    title: ClassVar[str] = "EuroSAT"
    folder: ClassVar[str] = "eurosat"
    origin: ClassVar[str] = (
        "Download EuroSAT.zip (the RGB images) from https://github.com/phelber/EuroSAT and unpack it there, so that "
        "{folder}/2750 holds one folder for each class."
    )
    classes_in_all: ClassVar[int] = 10
    held_out: ClassVar[float | None] = 0.1
    held_out_for_test: ClassVar[float | None] = 0.2
    dataset: ClassVar[str] = "EuroSAT"
    parts: ClassVar[dict[str, dict[str, Any]]] = {"train": {}}


class CIFAR10DataModule(_TorchvisionDataModule):
    """CIFAR-10: 32 px, 10 classes, 50,000 images to train and validate on and 10,000 to test.

    There is no validation split: 10 % of the former are held out for it.

    Source:
        Krizhevsky: Learning Multiple Layers of Features from Tiny Images (2009).
    """

    title: ClassVar[str] = "CIFAR-10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    origin: ClassVar[str] = (
        "Download the Python version from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it, so that {folder} "
        "holds its files."
    )
    classes_in_all: ClassVar[int] = 10
    held_out: ClassVar[float | None] = 0.1
    dataset: ClassVar[str] = "CIFAR10"
    parts: ClassVar[dict[str, dict[str, Any]]] = {"train": {"train": True}, "test": {"train": False}}

    def __init__(
        self,
        root: str | Path,
        *,
        image_size: int = 32,
        mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
        std: Sequence[float] = (0.2470, 0.2435, 0.2616),
        **options: Any,
    ) -> None:
        own: dict[str, Any] = {"eval_resize": image_size, "padding": 4}  # the object fills the image
        super().__init__(root, image_size=image_size, mean=mean, std=std, **{**own, **options})


class CIFAR100DataModule(CIFAR10DataModule):
    """CIFAR-100: as CIFAR-10, with 100 classes."""

    title: ClassVar[str] = "CIFAR-100"
    folder: ClassVar[str] = "cifar-100-python"
    classes_in_all: ClassVar[int] = 100
    dataset: ClassVar[str] = "CIFAR100"
