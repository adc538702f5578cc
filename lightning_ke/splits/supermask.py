"""Edge-popup: which of a network's weights, left as they are, already solve the task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_ke.arguments import as_number, whole
from lightning_ke.keyed_rng import forked_rng
from lightning_ke.masks import Mask
from lightning_ke.naming import is_below, unwrap
from lightning_ke.splits.base import SplitContext, check_rate
from lightning_ke.splits.draw import check_splittable
from lightning_ke.splits.ranked import highest, ranked_mask
from lightning_ke.units import units


def find_supermask(
    model: nn.Module,
    loader: Iterable[Any],
    rate: float = 0.5,
    *,
    epochs: int = 10,
    lr: float = 1.0,
    loss: Callable[[Any, Any], Tensor] = nn.functional.cross_entropy,
    seed: int = 0,
    target: str | None = None,
) -> Mask:
    """Learn which weights of a network to keep, without training the weights themselves.

    Every weight has a score. A forward uses, of each tensor, the ``ceil(rate * n)`` weights with the highest scores and
    zero for the others; the scores, not the weights, follow the gradient as if all were used. The result is a mask for
    `FixedMask`. Biases, norm and bare parameters are wholly fit.

    Weights, buffers and mode of the network are left as they are, and so is every global random stream of the CPU.

    Args:
        model: The network, called as ``model(inputs)`` in train mode; the very module that is to be trained, so that
            the mask has its names.
        loader: Batches ``(inputs, labels)``, two tensors; further items are ignored. It is gone through once an epoch.
        rate: Share of each tensor's entries that is fit, in (0, 1).
        epochs: How many times to go through the loader.
        lr: Learning rate of the scores: SGD with momentum 0.9 on a cosine. The gradient of a score is that of its
            weight times the weight, so it is small; searches of few steps want up to 10.
        loss: Called with the network's outputs and the labels.
        seed: Seed of the first scores, and of dropout and shuffling during the search.
        target: Canonical name of the submodule to which the search is limited.

    Returns:
        A bool tensor for every parameter, True where it is fit.

    Raises:
        ValueError: If an argument is out of range, if the network has no weights that could be masked, or if the loader
            has no batch in an epoch.

    Source:
        "What's Hidden in a Randomly Weighted Neural Network?" (CVPR 2020), edge-popup. The authors ran it on weights
        of one absolute value for each layer, with a learning rate of 0.1 over many more steps, and ranked absolute
        scores; here the weights are whatever they are.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 8)
        >>> labels = (x[:, 0] > 0).long()
        >>> net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
        >>> mask = find_supermask(net, [(x, labels)], rate=0.5, epochs=100)
        >>> mask["0.weight"].sum()
        tensor(256)
    """
    check_rate(rate)
    epochs = whole("epochs", epochs, least=1)
    if not 0 < as_number(lr) < math.inf:
        raise ValueError(f"Expected argument `lr` to be a positive number, but got {lr!r}. Leave it at 1.0.")
    network = unwrap(model)
    check_splittable(SplitContext(network, (), target, seed))
    weights: dict[str, Tensor] = {
        unit.canonical(local): weight
        for unit in units(network)
        for local, weight in unit.weights.items()
        if is_below(unit.canonical(local), target)
    }
    if not weights:
        raise ValueError(
            f"Expected {type(network).__name__} to have weights that can be masked, but it has no layer with any. "
            "Choose another `target`."
        )
    scores = _Search(network, weights, rate, seed, loss).run(loader, epochs, lr)
    return ranked_mask(network, scores, rate, target=target)


class _Search:
    """Trains the scores of a network's weights; the network itself only lends its code."""

    def __init__(
        self, network: nn.Module, weights: dict[str, Tensor], rate: float, seed: int, loss: Callable[[Any, Any], Tensor]
    ) -> None:
        self._network = network
        self._weights = weights
        self._rate = rate
        self._seed = seed
        self._loss = loss
        # The names that `functional_call` knows, which those of wrappers inside of the network are a part of.
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        self._own_name = {name: names[id(weight)] for name, weight in weights.items()}
        # Statistics are updated in copies.
        self._buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}

    def run(self, loader: Iterable[Any], epochs: int, lr: float) -> dict[str, Tensor]:
        """Go through the loader and return the scores."""
        modes = [(module, module.training) for module in self._network.modules()]
        with forked_rng() as seed_by, torch.enable_grad():
            scores = {}
            for name, weight in self._weights.items():
                seed_by("edge-popup", self._seed, name)
                drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
                nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
                scores[name] = drawn.to(weight.device).requires_grad_()
            optimizer = torch.optim.SGD(scores.values(), lr=lr, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
            seed_by("edge-popup", self._seed)
            self._network.train()
            try:
                for epoch in range(epochs):
                    empty = True
                    for inputs, labels, *_ in loader:
                        self._step(scores, inputs, labels)
                        optimizer.step()
                        empty = False
                    if empty:
                        raise ValueError(
                            f"Expected argument `loader` to hold batches in each of {epochs} epochs, but there is none "
                            f"in epoch {epoch + 1}. Give a DataLoader or a list, not an iterator that is used up."
                        )
                    schedule.step()
            finally:
                for module, mode in modes:
                    module.training = mode
        return {name: values.detach() for name, values in scores.items()}

    def _step(self, scores: dict[str, Tensor], inputs: Any, labels: Any) -> None:
        """Give each score the gradient of its weight's presence."""
        masked = {}
        for name, score in scores.items():
            flat = score.detach().flatten()
            member = highest(flat, math.ceil(self._rate * len(flat))).view(score.shape)
            # The value of the mask, the gradient of the score.
            weight = self._weights[name].detach()
            masked[self._own_name[name]] = weight * (member + (score - score.detach())).to(weight.dtype)
        device = next(iter(scores.values())).device
        outputs = functional_call(self._network, {**masked, **self._buffers}, (inputs.to(device),))
        gradients = torch.autograd.grad(
            self._loss(outputs, labels.to(device)), list(scores.values()), allow_unused=True
        )
        for score, gradient in zip(scores.values(), gradients, strict=True):
            score.grad = gradient
