"""Slim networks of experiments: files that also say how their dense network is built, out of runs and checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_ke.app.files import explained
from lightning_ke.app.trained import builder
from lightning_ke.slim import extract_slim, load_slim, save_slim
from lightning_ke.slim.extract import structure_of
from lightning_ke.slim.files import read_metadata

if TYPE_CHECKING:
    from lightning_ke.masks import Mask

_KEY = "lightning_ke.backbone"


def save_slim_file(
    path: Path, slim: nn.Module, mask: Mask, part: str | None = None, config: Mapping[str, Any] | None = None
) -> None:
    """Write a slim network, and how its dense network is built.

    Args:
        path: The file.
        slim: The slim network, or a task that holds it.
        mask: The mask it was cut by.
        part: Canonical name of the network inside the task; None for all of it.
        config: The dense network's configuration, in plain values; None if only the user's code knows how it is built.
    """
    save_slim(slim, path, mask, part, None if config is None else {_KEY: json.dumps(dict(config))})


def load_slim_file(path: str | Path) -> nn.Module:
    """Read a slim network that `ke-train`, or `ke-slim` without `--factory`, wrote.

    Args:
        path: The file.

    Returns:
        The slim network, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a slim network's, or does not say how the dense network is built.
    """
    described = read_metadata(path).get(_KEY)
    if described is None:
        raise ValueError(
            f"Expected {str(path)!r} to say how its dense network is built, but only your code knows that. Read it by "
            "`lightning_ke.load_slim(path, model_factory)` with a function that builds the dense network."
        )
    return load_slim(path, builder(json.loads(described), str(path))).eval()


def slim_from_checkpoint(path: Path, out: Path, factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Cut the slim network out of a checkpoint and write it.

    Args:
        path: A checkpoint that a Trainer with the `KnowledgeEvolution` callback wrote.
        out: The new file.
        factory: Builds the module whose state_dict the checkpoint holds, which is then written as a whole; None for a
            checkpoint of `ke-train`, whose backbone is written.

    Returns:
        The slim network.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint holds no mask or no weights, if a factory is needed to build its network, or if it
            builds another one.
    """
    from lightning_ke.masks import Mask, load_mask

    mask = load_mask(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if "state_dict" not in content:  # `load_mask` also reads a mask that was saved alone
        raise ValueError(
            f"Expected {str(path)!r} to be a checkpoint, but it holds a mask alone. Give the checkpoint of the run, "
            "which has the weights, too."
        )
    config, state = content.get("hyper_parameters", {}).get("config"), content["state_dict"]
    if factory is None:
        module: nn.Module = _Held(builder(config, str(path))())
        state = {name: value for name, value in state.items() if name.startswith("backbone.")}
    else:
        module = factory()
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # of torch, with one line for each tensor
        raise ValueError(
            f"Expected the network of {str(path)!r}, but what was built has other weights "
            f"({' '.join(str(error).split()[:30])} ...). Let the factory build the module that was trained."
        ) from error
    if factory is None:  # proxies, say, that a loss has learnt are no part of the network
        mask = Mask.from_structure(structure_of(mask), {name: p.shape for name, p in module.named_parameters()})
    slim = extract_slim(module, mask)
    part = None if factory else "backbone"
    with explained(out):
        save_slim_file(out, slim, mask, part, None if factory else config)
    return slim if part is None else slim.get_submodule(part)


class _Held(nn.Module):
    """A network in the place that it has in a task of `ke-train`, whichever task that was."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Any) -> Any:
        return self.backbone(*inputs)


def find_factory(name: str) -> Callable[[], nn.Module]:
    """Import the function that ``module:function`` names.

    Args:
        name: Dotted name of a module, a colon, name of a function without arguments.

    Raises:
        ValueError: If the name is not of this form, or the module has no such function.
        ModuleNotFoundError: If there is no such module.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"Expected `--factory` to be module:function, but got {name!r}. Write for example nets:make.")
    sys.path.insert(0, "")  # as for `python -m`: the function may lie in the current folder
    try:
        found = getattr(import_module(module), function, None)
    finally:
        sys.path.remove("")
    if not callable(found):
        raise ValueError(f"Expected `--factory` to name a function, but {module!r} has no function {function!r}.")
    factory: Callable[[], nn.Module] = found
    return factory
