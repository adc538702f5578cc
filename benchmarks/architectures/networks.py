"""The networks: their names, and how each is built."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import lightning_ke as ke
from benchmarks.architectures import of_monai, of_other_tasks
from benchmarks.architectures.of_monai import CLASSES, Build

SMALLEST = Path(__file__).with_name("smallest_timm_models.json")


class Family(NamedTuple):
    """Networks that share a table of the page.

    Args:
        title: How the page's headline calls them, after "networks of".
        names: Returns their names, the smallest first where that is known.
        build: Makes one of them by its name: the network, a small input for the proof, and one for the times.
    """

    title: str
    names: Callable[[], list[str]]
    build: Callable[[str], tuple[nn.Module, Any, Any]]


def _of_table(title: str, table: Callable[[], dict[str, Build]]) -> Family:
    """A family whose networks are written in a table, with one input for everything."""

    def build(name: str) -> tuple[nn.Module, Any, Any]:
        network, example = table()[name]()
        return network, example, example

    return Family(title, lambda: list(table()), build)


def _torchvision_names() -> list[str]:
    from torchvision import models

    sizes = {
        name: models.get_model_weights(name).DEFAULT.meta["num_params"] for name in models.list_models(module=models)
    }
    return sorted(sizes, key=lambda name: (sizes[name], name))


def _timm_names() -> list[str]:
    smallest = json.loads(SMALLEST.read_text()).values()
    return [name for _, name in sorted((size, name) for name, size in smallest)]


def choose() -> None:
    """Find the smallest network of each timm module (by parameters, built without memory)."""
    import timm

    smallest: dict[str, tuple[str, int]] = {}
    with torch.device("meta"):
        for module in timm.list_modules():
            for name in timm.list_models(module=module, pretrained=False):
                try:
                    size = sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
                except (RuntimeError, NotImplementedError):  # builds on real memory only
                    continue
                if module not in smallest or size < smallest[module][1]:
                    smallest[module] = (name, size)
    SMALLEST.write_text(json.dumps(smallest, indent=1) + "\n")


def _build_timm(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    import timm

    network = timm.create_model(name, pretrained=False, num_classes=CLASSES)
    settings = network.default_cfg
    own = torch.zeros(1, *settings["input_size"])
    if settings.get("fixed_input_size") or own.shape[-1] <= 128:
        return network, own, own
    small = own[..., :128, :128]
    try:
        ke.measure_cost(network, small)
    except ValueError:  # its windows fit into its own resolution only
        small = own
    return network, small, own


def _build_torchvision(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    import torchvision

    options: dict[str, Any] = {"num_classes": CLASSES}
    size, small_size = 224, 96
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
        size = small_size = 299 if name == "inception_v3" else 224
    if name.startswith(("vit", "maxvit")):
        small_size = 224
    network = torchvision.models.get_model(name, weights=None, **options)
    return network, torch.zeros(1, 3, small_size, small_size), torch.zeros(1, 3, size, size)


#: The families, in the order of their tables; the first one's networks are compared with torch-pruning.
FAMILIES = {
    "torchvision": Family("torchvision", _torchvision_names, _build_torchvision),
    "timm": Family("timm", _timm_names, _build_timm),
    "monai": _of_table("MONAI", of_monai.networks),
    "segmentation_models_pytorch": _of_table("segmentation_models_pytorch", of_other_tasks.segmentation_models),
    "torchvision segmentation": _of_table("torchvision for segmentation", of_other_tasks.torchvision_segmentation),
    "torchvision video": _of_table("torchvision for video", of_other_tasks.torchvision_video),
    "torchvision detection": _of_table("torchvision for detection", of_other_tasks.torchvision_detection),
}


def build(family: str, name: str) -> tuple[nn.Module, Any, Any]:
    """A network, a small input for the proof, and one for the times: at its own resolution, where it has one.

    Args:
        family: One of `FAMILIES`.
        name: The network's name.
    """
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    return FAMILIES[family].build(name)
