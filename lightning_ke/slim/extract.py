"""Making a slim network out of a dense one and its mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_ke.arguments import check_network
from lightning_ke.flow.copies import private_copy
from lightning_ke.masks import check_mask
from lightning_ke.slim.cut import narrowing, tell_sizes
from lightning_ke.slim.proof import verify_slim

if TYPE_CHECKING:
    from lightning_ke.masks import Mask
    from lightning_ke.structure import Structure


def extract_slim(model: nn.Module, mask: Mask, example_input: Any = None, verify: bool = True) -> nn.Module:
    """Make the fit hypothesis a network of its own: the same class tree with smaller tensors.

    Args:
        model: The dense network; it is not changed.
        mask: The mask of a structured split (KELS).
        example_input: A tensor for ``model(x)``, a tuple for ``model(*x)`` or a dict for ``model(**x)``; by default the
            network is proved on random inputs of the shapes that the mask was drawn with.
        verify: Prove that the slim network computes what the fit hypothesis computes inside the dense network.

    Returns:
        A new network that can be trained, copied and saved like any other.

    Raises:
        TypeError: If `model` is no network or `mask` no mask.
        ValueError: If the mask is not that of a structured split, or of another network, or if the network does not run
            on the example input.
        SlimError: If the network's own code fixes a width, so that no smaller network of its class computes the same.

    Example:
        >>> import torch
        >>> from lightning_ke.flow import decide_structure
        >>> from lightning_ke.masks import Mask
        >>> from lightning_ke.splits.base import Call
        >>> network = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Conv2d(10, 2, 1))
        >>> structure = decide_structure(network, [Call("", (torch.zeros(1, 3, 8, 8),))], rate=0.5)
        >>> mask = Mask.from_structure(structure, {name: p.shape for name, p in network.named_parameters()})
        >>> extract_slim(network, mask)[0]
        Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1))
    """
    check_network(model)
    structure = structure_of(mask)
    slim = private_copy(model, narrowing(model, structure))
    if "_metric_attributes" in vars(slim):  # where a LightningModule found its metric objects, by their id()
        vars(slim)["_metric_attributes"] = None
    tell_sizes(slim, structure)
    if verify:
        verify_slim(slim, model, mask, example_input)
    return slim


def structure_of(mask: Mask) -> Structure:
    """The kept channels of a mask.

    Args:
        mask: A mask of any split.

    Raises:
        TypeError: If it is no mask.
        ValueError: If its split chooses weights, not channels.
    """
    check_mask(mask)
    if mask.structure is None:
        raise ValueError(
            "Expected the mask of a structured split such as `kels`, but got one that does not know of channels: its "
            "fit hypothesis is no smaller network. Draw the mask with a structured split. Plain tensors lose its "
            "channels; keep them by `mask.state_dict()`, or read the mask from a checkpoint (`load_mask`)."
        )
    return mask.structure
