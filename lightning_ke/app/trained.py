"""Trained networks out of checkpoints of `ke-train`, which say how the dense network is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

# What the group `backbone` names.
_BUILDERS = (
    "lightning_ke.app.backbones.timm_backbone",
    "lightning_ke.app.backbones.torchvision_backbone",
    "lightning_ke.app.vision_transformer.small_vit",
    "lightning_ke.tasks.graphs.graph_network",
    "lightning_ke.tasks.text.CharacterGRU",
    "lightning_ke.tasks.text.CharacterTransformer",
)


def trained_backbone(checkpoint: str | Path) -> nn.Module:
    """The dense network of a run, with the weights of one of its checkpoints; a teacher, for example.

    Args:
        checkpoint: A checkpoint of `ke-train`, such as `checkpoints/best-dense.ckpt`; nothing in it is executed.

    Returns:
        The network, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not say how its network is built, or holds other weights.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a checkpoint of ke-train, but there is no file {str(path)!r}. Give one of the `checkpoints` "
            "folder of a run."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content["state_dict"], content["hyper_parameters"]
    except Exception as error:  # of many kinds, and of many lines
        raise ValueError(
            f"Expected {str(path)!r} to be a checkpoint of ke-train, but it cannot be read as one. Give one of the "
            "`checkpoints` folder of a run."
        ) from error
    network = builder(content["hyper_parameters"].get("config"), str(path))()
    part = "backbone."
    weights = {name[len(part) :]: value for name, value in content["state_dict"].items() if name.startswith(part)}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:  # of torch, with one line for each tensor
        raise ValueError(
            f"Expected {str(path)!r} to hold the weights of the network that it describes, but it holds others "
            f"({' '.join(str(error).split()[:30])} ...). Give a checkpoint that ke-train wrote, as it is."
        ) from error
    return network.eval()


def builder(config: Any, source: str) -> Callable[[], nn.Module]:
    """What builds the dense network that a file describes: one of this package's own builders or nothing.

    A file may come from anybody. It gives that builder plain values; it names no other function, and no file.

    Args:
        config: How the network is built, as the file says it.
        source: What to call the file.

    Raises:
        ValueError: If the file describes another network than those of the group `backbone`.
    """
    arguments = dict(config) if isinstance(config, Mapping) else {}
    plain = all(value is None or isinstance(value, (str, int, float)) for value in arguments.values())
    target = arguments.pop("_target_", None)
    if not plain or target not in _BUILDERS or "weights" in arguments:
        raise ValueError(
            f"Expected {source!r} to describe a network of ke-train's group `backbone`, but only your code knows how "
            "this one is built. Name a function without arguments that builds it: `ke-slim --factory "
            "module:function`, or `lightning_ke.load_slim(path, model_factory)`."
        )
    module, _, name = target.rpartition(".")
    make: Callable[..., nn.Module] = getattr(import_module(module), name)
    return partial(make, **arguments)
