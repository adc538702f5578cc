"""Networks for other tasks than classifying images: segmentation_models_pytorch, and torchvision's other modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.architectures.of_monai import CLASSES, Build

_DECODERS = [
    *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet"),
    *("PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet", "Segformer"),
]
_ENCODERS = [
    *("densenet121", "efficientnet-b0", "mit_b0", "se_resnet50", "timm-regnetx_002", "vgg11_bn", "xception", "dpn68"),
    *("mobileone_s0", "timm-resnest14d", "tu-convnext_atto", "tu-hrnet_w18_small"),
]
#: Frames, height and width of a video, by how a network's name begins; of all others a short one is enough.
_VIDEOS = {"s3d": (16, 224, 224), "mvit": (16, 224, 224), "swin3d": (8, 64, 64)}


def segmentation_models() -> dict[str, Build]:
    """Networks of segmentation_models_pytorch: every decoder with two encoders, and `Unet` with many."""
    chosen = [(decoder, encoder) for decoder in _DECODERS for encoder in ("resnet18", "mobilenet_v2")]
    chosen += [("Unet", encoder) for encoder in _ENCODERS]
    chosen += [("Segformer", "mit_b0"), ("DPT", "tu-vit_tiny_patch16_224")]

    def builder(decoder: str, encoder: str) -> Build:
        def build() -> tuple[nn.Module, Tensor]:
            import segmentation_models_pytorch as smp

            size = 224 if decoder == "DPT" else 128
            network = getattr(smp, decoder)(encoder, encoder_weights=None, classes=CLASSES)
            return network, torch.zeros(1, 3, size, size)

        return build

    return {f"{decoder} {encoder}": builder(decoder, encoder) for decoder, encoder in chosen}


def torchvision_segmentation() -> dict[str, Build]:
    """Networks of `torchvision.models.segmentation`."""
    return _of_torchvision("segmentation", lambda name: torch.zeros(1, 3, 96, 96), weights_backbone=None)


def torchvision_video() -> dict[str, Build]:
    """Networks of `torchvision.models.video`."""

    def video(name: str) -> Tensor:
        return torch.zeros(
            1, 3, *next((size for start, size in _VIDEOS.items() if name.startswith(start)), (8, 56, 56))
        )

    return _of_torchvision("video", video)


def torchvision_detection() -> dict[str, Build]:
    """Networks of `torchvision.models.detection`, called with a list of images."""
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    return _of_torchvision("detection", lambda name: ([image],), weights_backbone=None)


def _of_torchvision(task: str, example: Any, **options: Any) -> dict[str, Build]:
    from torchvision import models

    def builder(name: str) -> Build:
        own = {**options, "num_classes": 2 if "keypoint" in name else CLASSES}
        if task == "detection" and "ssd" not in name:
            own |= {"min_size": 96, "max_size": 96}  # or they would enlarge the image
        return lambda: (models.get_model(name, weights=None, **own), example(name))

    return {name: builder(name) for name in models.list_models(module=getattr(models, task))}
