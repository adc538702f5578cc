"""Weights from a local file for a network that may tell other classes apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_ke.extras import import_extra

# How files wrap what they hold, and what training wrappers put before each name.
_HOLDERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "backbone.", "_orig_mod.", "model.")
# torchvision's published DenseNets have names from a time when these were allowed to hold a dot.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
# Heads that only training uses, and which are not built here.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load weights into a network, all but those of a classifier for another number of classes.

    Args:
        network: The network, with random weights; changed in place.
        path: A file that ``torch.save`` or safetensors wrote; nothing but tensors and plain values is read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds other weights than this network's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected `backbone.weights` to be a file, but there is none at {str(path)!r}.")
    given = _named_like(network, _read(path))
    own = network.state_dict()
    head = _head(network)
    classes = {name for name in own if head is not None and name.rpartition(".")[0] == head}
    replaced = [name for name in sorted(classes) if name in given and given[name].shape != own[name].shape]
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in own and not name.startswith(_AUXILIARY)]
    other = [name for name in own if name in given and given[name].shape != own[name].shape and name not in replaced]
    if missing or unknown or other:
        if other:
            what = f"`{other[0]}` is {_shape(given[other[0]])} there and {_shape(own[other[0]])} here"
        else:
            what = f"`{missing[0]}` is missing there" if missing else f"`{unknown[0]}` is only there"
        raise ValueError(
            f"Expected {str(path)!r} to hold the weights of this network, but {what}. Give the weights of the same "
            "`backbone.name`; published ones fit `backbone.width=1` and the images' usual channels only."
        )
    network.load_state_dict({name: given[name] for name in own if name in given and name not in replaced}, strict=False)
    if replaced:
        rank_zero_info(
            f"Weights from {path}: all but the classifier `{head}`, which tells {given[replaced[0]].shape[0]} classes "
            f"apart there and {own[replaced[0]].shape[0]} here; it starts from random values."
        )
    else:
        rank_zero_info(f"Weights from {path}: all, the classifier included.")


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        safetensors = import_extra("safetensors", "app")
        try:
            tensors: dict[str, Tensor] = import_extra("safetensors.torch", "app").load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"Expected {str(path)!r} to be a complete safetensors file, but it cannot be read ({error}). It is "
                "truncated or of another kind; download or write it again."
            ) from error
        return tensors
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch and pickle stumble over: a text may be any sequence of instructions
        raise ValueError(
            f"Expected {str(path)!r} to hold tensors and plain values only, but it cannot be read as such. Save the "
            "network's `state_dict()` by `torch.save`, or use safetensors."
        ) from error
    for holder in _HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    items = content.items() if isinstance(content, dict) else ()
    found = {name: value for name, value in items if isinstance(value, Tensor)}
    if not found:
        raise ValueError(f"Expected {str(path)!r} to hold a network's weights, but it holds none.")
    return found


def _named_like(network: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names that the network has for them."""
    own = set(network.state_dict())
    given = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in given.items()}
    while not own & set(given):
        prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in given)), None)
        if prefix is None:
            break
        # What does not have it belongs to the training (metrics, a loss), not to the network.
        given = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    return given


def _head(network: nn.Module) -> str | None:
    """Name of the last layer, which tells the classes apart."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return layers[-1] if layers else None


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
