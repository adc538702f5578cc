"""Any classification network of torchvision's or timm's by name, adapted to the images."""

from __future__ import annotations

import difflib
import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lightning_ke.app.weights import load_weights
from lightning_ke.app.widths import FAMILIES, Stem, with_width
from lightning_ke.extras import import_extra


def torchvision_backbone(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    width: float = 1.0,
    stem: Stem = "imagenet",
    image_size: int | None = None,
    weights: str | Path | None = None,
) -> nn.Module:
    """Build a network of torchvision's, with random weights or those of a file.

    Args:
        name: What ``torchvision.models.list_models`` calls it.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        width: Factor for the channels of a ResNet, DenseNet, VGG, MobileNet, MNASNet or ShuffleNet; 1 for the network
            as published.
        stem: "imagenet" for the network as published; "small" lets a ResNet begin with a 3x3 convolution of stride 1
            and no pooling, for images of about 32 px.
        image_size: Side of the images in pixels, for networks that are built for one size; None for their own.
        weights: A file with weights, `.pth` or `.safetensors`; None for random ones. A classifier of another size is
            left at random values.

    Returns:
        A network from images of shape (N, `in_channels`, H, W) to scores of shape (N, `num_classes`), without auxiliary
        heads.

    Raises:
        ValueError: If torchvision has no such network, if it has no width or stem to choose, does not take images of
            this size, or if the weights are another network's.
        FileNotFoundError: If there is no file `weights`.

    Example:
        >>> network = torchvision_backbone("resnet18", num_classes=102, width=0.5)
        >>> f"{sum(parameter.numel() for parameter in network.parameters()):,}"
        '2,825,094'
    """
    models = import_extra("torchvision.models", "app")
    if name not in models.list_models(module=models):
        raise ValueError(_unknown("torchvision", name))
    if not 0 < width < math.inf:  # nan is neither
        raise ValueError(
            f"Expected `backbone.width` to be greater than 0 and finite, but got {width}. Give 1 for full width."
        )
    if stem not in ("imagenet", "small"):
        raise ValueError(f"Expected `backbone.stem` to be 'imagenet' or 'small', but got {stem!r}.")
    if stem == "small" and not name.startswith(("resnet", "resnext", "wide_resnet")):
        raise ValueError(
            f"Expected `backbone.stem` to be 'imagenet' for {name}, but got {stem!r}. Only ResNets have a small stem."
        )
    options = _options(models, name, width, image_size)
    try:
        network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:
        raise ValueError(_wrong_size(name, image_size, error)) from error
    if (width != 1 and "width_mult" not in options) or stem == "small":
        rebuilt = with_width(network, width, stem, num_classes)
        if rebuilt is None:
            raise ValueError(
                f"Expected `backbone.width` to be 1 for {name}, but got {width}. {FAMILIES} have a width to choose."
            )
        network = rebuilt
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    return _finished(network, name, in_channels, image_size, weights)


def timm_backbone(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    image_size: int | None = None,
    weights: str | Path | None = None,
) -> nn.Module:
    """Build a network of timm's, with random weights or those of a file.

    Args:
        name: What ``timm.list_models`` calls it, such as ``"convnext_pico"``; widths are part of the names there.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        image_size: Side of the images in pixels, for networks that are built for one size; None for their own.
        weights: A file with weights, `.pth` or `.safetensors`; None for random ones. A classifier of another size is
            left at random values.

    Returns:
        A network from images of shape (N, `in_channels`, H, W) to scores of shape (N, `num_classes`).

    Raises:
        ModuleNotFoundError: If timm is not installed.
        ValueError: If timm has no such network, it does not take images of this size, or the weights are another
            network's.
        FileNotFoundError: If there is no file `weights`.
    """
    timm = import_extra("timm", "timm")
    if name.partition(".")[0] not in timm.list_models():
        raise ValueError(_unknown("timm", name))
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    sized = options if image_size is None else {**options, "img_size": image_size}
    network: nn.Module
    try:
        network = timm.create_model(name, **sized)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        network = timm.create_model(name, **options)  # is not built for one size
    except (AssertionError, ValueError) as error:
        raise ValueError(_wrong_size(name, image_size, error)) from error
    return _finished(network, name, in_channels, image_size, weights)


def _options(models: ModuleType, name: str, width: float, image_size: int | None) -> dict[str, Any]:
    """Keyword arguments that only some families take."""
    if name in ("googlenet", "inception_v3"):
        # Auxiliary heads would make the training output a tuple; explicit initial weights avoid torchvision's warning.
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("mobilenet") and width != 1:
        return {"width_mult": width}
    if name.startswith("vit") and image_size is not None:
        return {"image_size": image_size}
    if name.startswith("maxvit") and image_size is not None:
        return {"input_size": (image_size, image_size)}
    return {}


def _finished(
    network: nn.Module, name: str, in_channels: int, image_size: int | None, weights: str | Path | None
) -> nn.Module:
    """Try the network on one image, and load its weights."""
    if weights is not None:
        load_weights(network, weights)
    if image_size is not None:
        network.eval()
        try:
            with torch.no_grad():
                network(torch.zeros(1, in_channels, image_size, image_size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(_wrong_size(name, image_size, error)) from error
        network.train()
    return network


def _wrong_size(name: str, image_size: int | None, error: Exception) -> str:
    """A network's refusal of an image size, as one sentence."""
    reason = " ".join(str(error).split())
    return f"Expected {name} to take images of {image_size} px, but it does not: {reason} Choose another `image_size`."


def _unknown(library: str, name: str) -> str:
    """What to answer to a name that a library does not have: the nearest names of both."""
    lists = {}
    models = import_extra("torchvision.models", "app")
    lists["torchvision"] = models.list_models(module=models)
    if importlib.util.find_spec("timm") is not None:
        lists["timm"] = import_extra("timm", "timm").list_models()
    sentence = f"Expected `backbone.name` to be a network that {library} has, but got {name!r}."
    nearest = [
        f"{', '.join(found)} (backbone={group})"
        for group, names in lists.items()
        if (found := difflib.get_close_matches(name, names, n=3, cutoff=0.6))
    ]
    if nearest:
        return f"{sentence} The nearest are {' and '.join(nearest)}."
    return f"{sentence} `torchvision.models.list_models()` and `timm.list_models()` have them all."


def _replace_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Let the first convolution read images with another number of channels."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.in_channels = in_channels
    first.weight = nn.Parameter(torch.empty(first.out_channels, in_channels, *first.kernel_size))
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
