"""ImageNet (ILSVRC 2012) as class folders, decoded as it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.data.decode import LabelledImages
from lightning_ke.data.pictures import PictureDataModule
from lightning_ke.extras import import_extra


class ImageNetDataModule(PictureDataModule):
    """ImageNet: 1,000 classes, 1,281,167 training images, and the 50,000 validation images to test on.

    The labels of the test images were never published, so the validation images are what everyone tests on. Weights are
    chosen on 1 % of the training images of each class, which are held out.

    The folder ``imagenet`` below `root` holds ``train/CLASS`` and ``val/CLASS`` for every class, such as
    ``val/n01440764/ILSVRC2012_val_00000293.JPEG``. The validation archive itself has no class folders;
    ``torchvision.datasets.ImageNet(FOLDER, split="val")`` unpacks both archives that way.

    Source:
        Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge (IJCV 2015).
    """

    title: ClassVar[str] = "ImageNet"
    folder: ClassVar[str] = "imagenet"
    origin: ClassVar[str] = (
        "Download ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        "https://image-net.org and let `torchvision.datasets.ImageNet({folder!r}, split)` unpack them for the splits "
        "'train' and 'val': each needs one folder for every class, the validation images, too."
    )
    classes_in_all: ClassVar[int] = 1000
    downloads: ClassVar[bool] = False
    held_out: ClassVar[float | None] = 0.01

    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part.

        Args:
            part: ``"train"`` or ``"test"``.
            transform: From an image to a tensor.
            download: Not possible.
        """
        folder = self.root / self.folder / ("train" if part == "train" else "val")
        datasets = import_extra("torchvision.datasets", "app")
        opened: LabelledImages = datasets.ImageFolder(folder, transform=transform)
        return opened
