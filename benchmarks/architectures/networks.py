"""The networks: their names, and how each is built."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lightning_ke as ke

#: Number of classes.
CLASSES = 10
SMALLEST = Path(__file__).with_name("smallest_timm_models.json")


def names(families: list[str]) -> list[tuple[str, str]]:
    """Family and name of every network, the smallest first."""
    found: list[tuple[int, str, str]] = []
    if "torchvision" in families:
        from torchvision import models

        for name in models.list_models(module=models):
            size = models.get_model_weights(name).DEFAULT.meta["num_params"]
            found.append((size, "torchvision", name))
    if "timm" in families:
        found += [(size, "timm", name) for name, size in json.loads(SMALLEST.read_text()).values()]
    return [(family, name) for _, family, name in sorted(found)]


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


def build(family: str, name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, a small input for the proof and one of its own resolution for the times."""
    warnings.simplefilter("ignore")
    if family == "timm":
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
