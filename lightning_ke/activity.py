"""What a split learns from the network's own forwards: how strong each channel is that a layer reads, over an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from lightning_ke.naming import named_modules
from lightning_ke.units import filters_dim, units

if TYPE_CHECKING:
    from lightning_ke.compatibility import Trainer
    from lightning_ke.splits.base import Call


class ActivityGatherer:
    """Sums the absolute values of every channel that a layer reads over the training batches of an epoch.

    No batch is run for it, and no module of the network is changed: it listens to all forwards between `listen` and
    `close`. Layers are modules with one weight of two or more dimensions, without groups: linear and convolution
    layers, also those of other libraries. While it gathers it holds one float32 for every input channel of each layer.

    Attributes:
        sums: What was heard in the last epoch, by canonical name of the layer's weight: float32 of shape (channels,).

    Example:
        >>> layer, gatherer = nn.Linear(2, 1), ActivityGatherer()
        >>> gatherer.listen(layer, epoch=0)
        >>> _ = layer(torch.tensor([[1.0, -2.0], [1.0, 0.0]]))
        >>> gatherer.close()
        >>> _ = layer(torch.ones(1, 2))
        >>> gatherer.sums["weight"]
        tensor([2., 2.])
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self._epoch: int | None = None
        self._layers: dict[int, tuple[str, int, int]] = {}  # by the module's id: name, dimensions behind, channels
        self._handle: RemovableHandle | None = None

    def listen(self, model: nn.Module, epoch: int) -> None:
        """Listen to the forwards of a network's layers, until `close`.

        Args:
            model: The network.
            epoch: Number of the epoch; another one than before starts the sums over.
        """
        if epoch != self._epoch or not self._layers:
            self.sums = {} if epoch != self._epoch else self.sums
            self._epoch, self._layers = epoch, dict(_layers(model))
        self.close()
        self._handle = register_module_forward_pre_hook(self._heard)

    def close(self) -> None:
        """Listen no longer."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @torch.no_grad()
    def _heard(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        layer = self._layers.get(id(module))
        if layer is None or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return
        name, behind, channels = layer
        at = args[0].dim() - 1 - behind
        if at < 0 or args[0].shape[at] != channels:
            return
        others = [dim for dim in range(args[0].dim()) if dim != at]
        heard = args[0].detach().abs().sum(others, dtype=torch.float32) if others else args[0].detach().abs().float()
        # What overflowed in half precision says nothing.
        heard = heard.nan_to_num_(0.0, 0.0, 0.0)
        known = self.sums.get(name)
        self.sums[name] = heard if known is None else heard.add_(known.to(heard.device))

    def collect(self, trainer: Trainer, pl_module: nn.Module) -> dict[str, Tensor]:
        """Add up what all ranks have heard; all of them must ask for it together, as often as they like.

        From then on the first rank alone holds the sums, so that its checkpoint knows all that was heard.

        Args:
            trainer: The Trainer.
            pl_module: The network.

        Returns:
            As `sums`, the same on all ranks.
        """
        if trainer.world_size == 1:
            return self.sums
        totals: dict[str, Tensor] = {}
        for _, (name, _, channels) in _layers(pl_module):
            own = self.sums.get(name, torch.zeros(channels)).to(trainer.strategy.root_device)
            total: Tensor = trainer.strategy.reduce(own, reduce_op="sum")
            if bool(total.any()):
                totals[name] = total
        self.sums = dict(totals) if trainer.is_global_zero else {}
        return totals

    def clear(self) -> None:
        """Forget what was heard."""
        self.sums, self._epoch, self._layers = {}, None, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums, and the epoch that they are of, in plain types."""
        return {"epoch": self._epoch, "sums": dict(self.sums)}

    def load_state_dict(self, state: Mapping[str, Any], *, rank: int = 0) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The remembered state, of rank 0.
            rank: Number of this rank: the first one holds what all have heard.
        """
        self._epoch, self.sums = state["epoch"], dict(state["sums"]) if rank == 0 else {}


def activity_of(model: nn.Module, calls: Sequence[Call]) -> dict[str, Tensor]:
    """How strong each channel is in given calls; the network, in eval mode for them, stays as it is.

    Args:
        model: The network.
        calls: How it is run.

    Returns:
        As `ActivityGatherer.sums`.

    Example:
        >>> from lightning_ke.splits.base import Call
        >>> activity_of(nn.Linear(2, 1), [Call("", (torch.tensor([[1.0, -2.0]]),))])
        {'weight': tensor([1., 2.])}
    """
    gatherer, modules = ActivityGatherer(), dict(named_modules(model))
    with _eval(model), torch.no_grad():
        gatherer.listen(model, epoch=0)
        try:
            for call in calls:
                modules[call.module](*call.args, **call.kwargs)
        finally:
            gatherer.close()
    return gatherer.sums


@contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _layers(model: nn.Module) -> Iterator[tuple[int, tuple[str, int, int]]]:
    """The id of each layer that can be heard, its weight's name, the dimensions behind its input's channels, these."""
    for unit in units(model):
        if set(unit.weights) == {"weight"} and getattr(unit.module, "groups", 1) == 1:
            weight = unit.weights["weight"]
            channels = weight.shape[1 - filters_dim(unit.module)]
            yield id(unit.module), (unit.canonical("weight"), weight.dim() - 2, int(channels))
