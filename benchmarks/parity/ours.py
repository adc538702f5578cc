"""What our run needs to be asked the same question: the script's initial weights, and test images at every boundary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.data import Flowers102DataModule
from lightning_ke.data.decode import LabelledImages


def backbone(name: str, num_classes: int, width: float, weights: str | None) -> nn.Module:
    """A network that begins with the script's weights: kaiming-normal values by fan-in in every weight matrix.

    Args:
        name: What torchvision calls it.
        num_classes: Number of classes.
        width: Factor for the channels.
        weights: A file; None, because the script begins with random values, too.
    """
    network = torchvision_backbone(name, num_classes, width=width, weights=weights)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    return network


class ScoredOnTest(Flowers102DataModule):
    """Flowers-102 whose test images are scored after each generation, as the script does. Nothing is chosen by them."""

    def open(
        self, part: str, transform: Callable[[Any], Tensor] | None = None, *, download: bool = False
    ) -> LabelledImages:
        """Open one part; the test images for ``"val"``.

        Args:
            part: ``"train"``, ``"val"`` or ``"test"``.
            transform: From an image to a tensor.
            download: Whether torchvision may download it.
        """
        return super().open("test" if part == "val" else part, transform, download=download)
