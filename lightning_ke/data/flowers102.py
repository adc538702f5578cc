"""Oxford Flowers-102, the data set of the paper, as torchvision lays it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.data.decode import LabelledImages
from lightning_ke.data.pictures import PictureDataModule
from lightning_ke.extras import import_extra


class Flowers102DataModule(PictureDataModule):
    """Flowers-102 with its official split: 1,020 training, 1,020 validation, 6,149 test images of 102 classes.

    The folder ``flowers-102`` below `root` holds ``jpg``, ``imagelabels.mat`` and ``setid.mat``.

    Source:
        Nilsback, Zisserman: Automated flower classification over a large number of classes (2008).
    """

    title: ClassVar[str] = "Flowers-102"
    folder: ClassVar[str] = "flowers-102"
    origin: ClassVar[str] = (
        "Download 102flowers.tgz, imagelabels.mat and setid.mat from "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ and put the unpacked folder jpg and the two .mat "
        "files there."
    )
    classes_in_all: ClassVar[int] = 102

    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
            transform: From an image to a tensor.
            download: Whether torchvision may download it.
        """
        datasets = import_extra("torchvision.datasets", "app")
        import_extra("scipy", "app")  # torchvision reads the two .mat files with it
        opened: LabelledImages = datasets.Flowers102(self.root, part, transform=transform, download=download)
        return opened
