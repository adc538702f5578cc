"""The embedded images as a data module: nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_ke.data import fashion_mnist
from lightning_ke.data.base import ImageDataModule


class EmbeddedDataModule(ImageDataModule):
    """1,000 training, 500 validation and 2,500 test images of Fashion-MNIST (28 px, one channel, 10 classes).

    Args:
        image_size: Side of the images that the network sees, in pixels.
        crop_scale: Smallest and largest share of a training image's area that is cut out.
        **options: Further options of `ImageDataModule`.

    Example:
        >>> data = EmbeddedDataModule(batch_size=50)
        >>> data.setup("fit")
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> images.shape, labels.shape
        (torch.Size([50, 1, 28, 28]), torch.Size([50]))
    """

    in_channels = 1

    def __init__(
        self,
        *,
        image_size: int = 28,
        crop_scale: Sequence[float] = (0.5, 1.0),
        **options: Any,
    ) -> None:
        # The object fills the image: nothing to cut off.
        own: dict[str, Any] = {"eval_resize": image_size, "mean": (0.287,), "std": (0.355,)}
        super().__init__(image_size=image_size, crop_scale=crop_scale, **{**own, **options})

    @property
    def num_classes(self) -> int:
        """Number of classes: 10."""
        return len(fashion_mnist.CLASSES)

    def read(self, part: str) -> tuple[Sequence[Tensor], Tensor]:
        """Read one part into memory.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
        """
        images, labels = fashion_mnist.load(part)
        return images.permute(0, 2, 3, 1).unbind(), labels
