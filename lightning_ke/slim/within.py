"""Running a dense network as its slim network: narrow tensors for the time of a call, gradients for the dense ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_ke import naming
from lightning_ke.flow.copies import private_copy
from lightning_ke.slim.cut import narrowing, tell_sizes
from lightning_ke.structure import Structure

_RUNS_SLIM: ContextVar[bool] = ContextVar("runs_slim", default=False)


def runs_slim() -> bool:
    """Whether the code that asks is run by a dense network as its slim network (phases `SlimFirst`, `Slimmable`).

    Example:
        >>> runs_slim()
        False
    """
    return _RUNS_SLIM.get()


class SlimWithin:
    """A method of a network that runs on the kept channels alone, at the slim network's cost.

    The network's own parameters stay where they are and as they are: each call computes with differentiable copies of
    their kept entries, so that optimizers, checkpoints and DistributedDataParallel see the dense network, whose other
    entries get a gradient of zero. Buffers (running statistics) are changed in their kept entries.

    Args:
        model: The dense network.
        structure: What is kept of each tensor.
        method: Name of the method.
        keep_buffers: Whether what a call does to buffers (running statistics) stays; if not, they are as they were.

    Example:
        >>> from lightning_ke.flow import decide_structure
        >>> from lightning_ke.splits.base import Call
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> structure = decide_structure(network, [Call("", (torch.zeros(1, 3),))], rate=0.5)
        >>> SlimWithin(network, structure)(torch.ones(1, 3)).sum().backward()
        >>> network[0].weight.grad.abs().sum(1) > 0  # of 8 channels, 4 are kept
        tensor([ True,  True,  True,  True, False, False, False, False])
    """

    def __init__(
        self, model: nn.Module, structure: Structure, method: str = "forward", *, keep_buffers: bool = True
    ) -> None:
        self._keep = keep_buffers
        self._structure = structure
        self._model = _Method(model, getattr(model, method))
        self._sizes = _different_sizes(model, structure)
        self._recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method.

        Args:
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        narrow = {
            name: self._structure.slim_values(naming.canonical_name(name).removeprefix("model."), tensor)
            for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers())
        }
        if not self._keep:  # buffers that are whole would be written through
            narrow |= {name: narrow[name].clone() for name, _ in self._model.named_buffers()}
        token = _RUNS_SLIM.set(True)
        try:
            with self._told(narrow):
                result = functional_call(self._model, narrow, args, kwargs)
        finally:
            _RUNS_SLIM.reset(token)
        if self._keep:
            self._keep_buffers(narrow)
        return result

    @contextmanager
    def _told(self, narrow: dict[str, Tensor]) -> Iterator[None]:
        """Let modules say the sizes that they have meanwhile."""
        names = {id(parameter): name for name, parameter in self._model.named_parameters(remove_duplicate=False)}
        flat = [module._flat_weights for module in self._recurrent]
        try:
            for module, slim, _ in self._sizes:
                vars(module).update(slim)
            for module, weights in zip(self._recurrent, flat, strict=True):
                module._flat_weights = [narrow[names[id(weight)]] for weight in weights if weight is not None]
            yield
        finally:
            for module, _, dense in self._sizes:
                vars(module).update(dense)
            for module, weights in zip(self._recurrent, flat, strict=True):
                module._flat_weights = weights

    @torch.no_grad()
    def _keep_buffers(self, narrow: dict[str, Tensor]) -> None:
        for name, buffer in self._model.named_buffers():
            cut = self._structure.cuts.get(naming.canonical_name(name).removeprefix("model."))
            if cut is not None:
                where = [
                    torch.arange(size, device=buffer.device) if axis < 0 else self._structure.axes[axis].kept.long()
                    for size, axis in zip(cut.shape, cut.axes, strict=True)
                ]
                buffer[torch.meshgrid(*(positions.to(buffer.device) for positions in where), indexing="ij")] = narrow[
                    name
                ].to(buffer)


class _Method(nn.Module):
    """One method of a network as a network's forward, because that is what can be run on other tensors."""

    def __init__(self, model: nn.Module, method: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)


def _different_sizes(model: nn.Module, structure: Structure) -> list[tuple[nn.Module, dict[str, Any], dict[str, Any]]]:
    """The attributes that a slim network's modules have otherwise: module, slim values, dense values."""
    slim = private_copy(model, narrowing(model, structure))
    tell_sizes(slim, structure)
    twins = dict(naming.named_modules(slim))
    found = []
    for name, module in naming.named_modules(model):
        own, other = vars(module), vars(twins[name])
        changed = [key for key, value in own.items() if key in other and _is_plain(value) and value != other[key]]
        if changed:
            found.append((module, {key: other[key] for key in changed}, {key: own[key] for key in changed}))
    return found


def _is_plain(value: Any) -> bool:
    """Whether a value is made of numbers and strings alone, so that two of them can be compared."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str, type(None)))
