"""Units that hardly ever say anything are recycled: read afresh, and for the time being not listened to (ReDo)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from lightning_ke.activity import activity_of
from lightning_ke.arguments import as_number
from lightning_ke.masks import Mask
from lightning_ke.packing import Bits, Entry, Whole
from lightning_ke.resets.drawn import Zero
from lightning_ke.splits.base import RedrawSet, Split, SplitContext
from lightning_ke.units import filters_dim, units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lightning_ke.flow.leaves import Leaf


@dataclass(frozen=True)
class Dormant(Split):
    """Redraw what dormant channels read, and set to zero what reads them; nothing else is touched.

    A channel is dormant if its mean absolute value, divided by the mean over all channels of the layer that reads it,
    is at most `tau` for every layer that reads it. It is heard in the generation's last epoch, by the training's own
    batches, behind whatever stands between two layers (norm, activation). Whatever carries a channel (the rows of the
    layers that produce it, the columns of those that read it, also across additions and flattening) is found by
    following the channels through the network. What comes in and what goes out is never dormant.

    Until the first generation is trained nothing is known, and all is fit. Outside of a training the example input
    decides.

    Args:
        tau: The greatest share of its layer's mean that a dormant channel has, at least 0 and less than 1.

    Raises:
        ValueError: If `tau` is out of range.

    Source:
        "The Dormant Neuron Phenomenon in Deep Reinforcement Learning" (ICML 2023), ReDo.

    Example:
        >>> from torch import nn
        >>> from lightning_ke.splits import draw_mask
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with torch.no_grad():
        ...     _ = net[0].bias.copy_(torch.tensor([9.0, -9.0, 9.0]))  # the ReLU never lets the second channel pass
        >>> mask = draw_mask(net, Dormant(), example_input=torch.rand(4, 2))
        >>> mask["0.weight"].tolist(), mask["2.weight"].tolist()
        ([[True, True], [False, False], [True, True]], [[True, False, True]])
    """

    tau: float = 0.1

    name: ClassVar[str] = "dormant"
    last_draw = float("inf")
    needs_calls = True
    listens = True
    reads_values = True
    may_keep_all = True

    def __post_init__(self) -> None:
        if not 0 <= as_number(self.tau) < 1:
            raise ValueError(
                f"Expected argument `tau` to be in [0, 1), but got {self.tau!r}. It is the greatest share of its "
                "layer's mean activity that a dormant channel has, such as 0.1."
            )
        object.__setattr__(self, "tau", float(self.tau))  # a frozen dataclass is filled in this way

    def draw(self, context: SplitContext) -> Mask:
        """Mark what belongs to no dormant channel.

        Args:
            context: The network and how it is run.
        """
        read, silenced = self._members(context)
        return _keeping({name: read[name] | silenced[name] for name in read})

    def redraws(self, mask: Mask, context: SplitContext) -> Sequence[RedrawSet]:
        """Return the weights that dormant channels read, and those that read them (and biases), which become zero.

        Args:
            mask: The mask of the split.
            context: The network; `context.generation` is the generation to be opened.
        """
        read, silenced = self._members(context)
        return RedrawSet(_keeping(read)), RedrawSet(_keeping(silenced), Zero())

    def _members(self, context: SplitContext) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Bool tensors of every parameter's shape: what dormant channels read, and what reads or shifts them."""
        # Imported here because splits that choose weights one by one have no use for channel flow.
        from lightning_ke.flow.trace import trace
        from lightning_ke.flow.variables import read as of

        activity = context.activity
        if activity is None:
            activity = activity_of(context.model, context.calls)
        traced = trace(context.model, context.calls, context.target)
        roots = traced.variables.roots()
        dormant = self._dormant(context, traced.leaves, roots, activity)
        read, silenced = {}, {}
        for unit in units(context.model):
            out = filters_dim(unit.module)
            for local, parameter in unit.parameters.items():
                name = unit.canonical(local)
                read[name], silenced[name] = (
                    torch.zeros(parameter.shape, dtype=torch.bool, device="cpu") for _ in range(2)
                )
                if unit.kind != "layer":
                    continue
                for dim, variables in enumerate(traced.leaves[name].dims):
                    if variables is not None:
                        weight = local in unit.weights
                        into = read if weight and dim == out else silenced
                        shape = [-1 if at == dim else 1 for at in range(parameter.dim())]
                        into[name] |= dormant[torch.from_numpy(of(roots, variables))].view(shape)
        return read, silenced

    def _dormant(
        self,
        context: SplitContext,
        leaves: Mapping[str, Leaf],
        roots: NDArray[np.int32],
        activity: Mapping[str, Tensor],
    ) -> Tensor:
        """Bool tensor that says of every root variable whether it is dormant."""
        from lightning_ke.flow.variables import PINNED, read

        score = torch.full(
            (len(roots),), -1.0, dtype=torch.float32, device="cpu"
        )  # below every score: read by no layer that was heard
        for unit in units(context.model):
            name = unit.canonical("weight")
            variables = leaves[name].dims[1 - filters_dim(unit.module)] if name in activity else None
            if variables is None:
                continue
            # A flattened channel is read at several places: what counts is the mean of all of them.
            met = torch.from_numpy(read(roots, variables))
            own, place, times = torch.unique(met, return_inverse=True, return_counts=True)
            heard = activity[name].cpu().float()
            mean = torch.zeros(len(own), dtype=torch.float32, device="cpu").index_add(0, place, heard) / times
            share = mean / mean.mean() if bool(mean.any()) else mean
            score[own] = torch.maximum(score[own], share)
        dormant = (score >= 0) & (score <= self.tau)
        dormant[PINNED] = False
        return dormant


def _keeping(redrawn: Mapping[str, Tensor]) -> Mask:
    entries: dict[str, Entry] = {}
    for name, member in redrawn.items():
        entries[name] = Bits.pack(~member) if bool(member.any()) else Whole(tuple(member.shape), fit=True)
    return Mask(entries)
