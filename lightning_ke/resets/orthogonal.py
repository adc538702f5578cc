"""Filters are redrawn in directions that the layer does not use yet (RePr)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lightning_ke.resets.base import Reset
from lightning_ke.resets.drawn import LayerReset, blank_padding
from lightning_ke.units import StandIn, filters_dim, is_norm


class Orthogonal(Reset):
    """Draw as the layer itself does, then turn every filter until it is orthogonal to all that the layer holds.

    That is: to the filters that stay, to the old values of those that are redrawn, and (where there is room for as many
    as the layer has) to each other; its length stays. Where the old filters span the whole space already, as in layers
    with more filters than weights in each, nothing is orthogonal to them, and the layer's own draw stays as it is; so
    do biases, norms and the parameters of layers with several weights. Made for splits that redraw whole filters
    (`Overlap`, `Layers`); of a filter that is redrawn in part, that part takes its place in the turned one.

    Source:
        "RePr: Improved Training of Convolutional Filters" (CVPR 2019).

    Example:
        >>> from torch import nn
        >>> from lightning_ke.masks import Mask
        >>> from lightning_ke.redrawing import redraw
        >>> layer = nn.Linear(5, 2, bias=False)
        >>> mask = Mask.from_tensors({"weight": torch.tensor([[True], [False]]).expand(2, 5)})
        >>> old = layer.weight.detach().clone()
        >>> _ = redraw(layer, mask, generation=2, reset=Orthogonal())
        >>> bool((layer.weight[1] @ old.T).abs().max() < 1e-6)
        True
    """

    name: ClassVar[str] = "orthogonal"
    description: ClassVar[str] = "filters orthogonal to those that the layer holds, as long as its own draw"
    keeps_undrawn: ClassVar[bool] = True
    reads_current: ClassVar[bool] = True

    def draw(self, stand_in: StandIn) -> None:
        """Draw one module's values.

        Args:
            stand_in: A private copy of one module.
        """
        LayerReset().draw(stand_in)
        if is_norm(stand_in.module) or set(stand_in.unit.weights) != {"weight"}:
            return
        name = stand_in.unit.canonical("weight")
        fresh, dim = stand_in.parameters[name], filters_dim(stand_in.module)
        rows = fresh.movedim(dim, 0)
        turned = _turned(rows.flatten(1), stand_in.current(name).movedim(dim, 0).flatten(1))
        fresh.copy_(turned.view(rows.shape).movedim(0, dim))
        blank_padding(stand_in)


def _turned(fresh: Tensor, held: Tensor) -> Tensor:
    """The rows of `fresh`, as long as they are, orthogonal to the rows of `held` where that leaves any direction."""
    # In double precision, so that another processor rounds to the same float32.
    wanted, held = fresh.double(), held.double()
    _, sizes, directions = torch.linalg.svd(held, full_matrices=False)
    basis = directions[sizes > sizes.max() * 1e-6] if bool(held.any()) else directions[:0]
    room = held.shape[1] - len(basis)
    if room == 0:
        return fresh
    free = wanted - (wanted @ basis.T) @ basis
    if len(free) <= room:
        free = torch.linalg.qr(free.T).Q.T
        free = free - (free @ basis.T) @ basis  # once more: what rounding left
    lengths = wanted.norm(dim=1, keepdim=True)
    turned: Tensor = free / free.norm(dim=1, keepdim=True) * lengths
    return turned.to(fresh.dtype)
