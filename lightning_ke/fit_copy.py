"""A private copy of a LightningModule that runs the user's own steps, logs elsewhere and trains nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from lightning_ke.compiled import uncompiled
from lightning_ke.sharding import is_mesh, plain_modules

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule


class _Silent:
    """Stands in for loggers, optimizers and schedulers: whatever the copy does to them has no effect."""

    def __getattr__(self, name: str) -> Any:
        return _Silent()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Silent()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""


class _Still(_Silent):
    """Stands in for an optimizer or a schedule: where it is can be read, but nothing moves it."""

    def __init__(self, real: Any) -> None:
        self._real = real

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [dict(group) for group in self._real.param_groups]

    def get_last_lr(self) -> list[float]:
        return list(self._real.get_last_lr())

    def step(self, closure: Any = None, **_: Any) -> Any:
        """Run a training step that was written as a closure."""
        return closure() if callable(closure) else None


class _FitCopy:
    """What a copy of a LightningModule does differently: it logs elsewhere and steps nothing.

    Mixed into the copy's own class, so that `super()` and `isinstance` in the user's code keep working.
    """

    ke_log: Callable[..., None]
    _trainer: Any

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        self.ke_log(name, value, *args, **kwargs)

    def log_dict(self, dictionary: Any, *args: Any, **kwargs: Any) -> None:
        from torchmetrics import MetricCollection

        # As LightningModule.log_dict: the collection's own prefix applies and its states are not copied.
        items = (
            dictionary.items(keep_base=False, copy_state=False)
            if isinstance(dictionary, MetricCollection)
            else dictionary.items()
        )
        for name, value in items:
            self.ke_log(name, value, *args, **kwargs)

    @property
    def logger(self) -> Any:
        return _Silent()

    @property
    def loggers(self) -> list[Any]:
        return []

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Say nothing: the dense pass has said it."""

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        return _one_or_all([] if self._trainer is None else self._trainer.optimizers)

    def lr_schedulers(self) -> Any:
        configs = [] if self._trainer is None else self._trainer.lr_scheduler_configs
        return _one_or_all([config.scheduler for config in configs]) if configs else None

    def manual_backward(self, *args: Any, **kwargs: Any) -> None:
        """Compute no gradient."""

    def toggle_optimizer(self, *args: Any, **kwargs: Any) -> None:
        """Leave `requires_grad` alone."""

    def untoggle_optimizer(self, *args: Any, **kwargs: Any) -> None:
        """Leave `requires_grad` alone."""

    def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
        """There are no gradients."""


def _one_or_all(found: list[Any]) -> Any:
    """As a LightningModule hands them out: one by itself, several as a list."""
    still = [_Still(each) for each in found]
    return still[0] if len(still) == 1 else still


def private_copy(pl_module: LightningModule, convert: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """Deep-copy a LightningModule without the Trainer, loggers, loaders and optimizers that it refers to.

    Args:
        pl_module: The module; its copy shares the Trainer and has its own weights, buffers and metric objects.
        convert: Makes the copy of a parameter or buffer; None copies it as it is.
    """
    shared: dict[int, Any] = {}
    modules = list(pl_module.modules())
    for module in modules:
        for value in module.__dict__.values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:  # a loss that was kept, with its graph
                shared[id(value)] = value.detach().clone()
            elif is_mesh(value):
                shared[id(value)] = value
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if convert is not None and tensor is not None and id(tensor) not in shared:
                shared[id(tensor)] = convert(tensor)
    trainer = pl_module._trainer
    if trainer is not None:
        for item in (trainer, trainer.strategy, trainer.datamodule, *trainer.loggers, *trainer.callbacks):
            if item is not None:
                shared[id(item)] = item
    try:
        with plain_modules(modules), uncompiled(modules):
            twin = copy.deepcopy(pl_module, shared)
    except Exception as error:
        raise ValueError(
            f"Expected {type(pl_module).__name__} to be copyable, so that its fit hypothesis can be scored, but "
            f"copying it failed ({error}). Keep what cannot be copied out of the module, or use `score_fit=False`."
        ) from error
    twin._trainer = trainer  # a LightningModule leaves its Trainer behind when it is copied
    # The cache maps id()s of the original's metric objects: stale in the copy.
    twin._metric_attributes = None
    for parameter in twin.parameters():
        parameter.grad = None
    return twin


def redirect(pl_module: Any, log: Callable[..., None]) -> None:
    """Let a copy of a LightningModule log through a function and step nothing.

    Args:
        pl_module: The copy.
        log: Called as `LightningModule.log`.
    """
    kind = type(pl_module)
    pl_module.__class__ = type(kind.__name__, (_FitCopy, kind), {"__module__": kind.__module__})
    pl_module.__dict__["ke_log"] = log


def restore_class(pl_module: Any) -> None:
    """Take back what `redirect` did.

    Args:
        pl_module: The copy.
    """
    pl_module.__class__ = type(pl_module).__bases__[1]
    del pl_module.__dict__["ke_log"]


def plain_attributes(pl_module: LightningModule) -> dict[str, Any]:
    """Attributes of the module itself that a training may change (a margin, a temperature, a phase).

    Args:
        pl_module: A LightningModule.
    """
    return {
        name: value
        for name, value in vars(pl_module).items()
        if not name.startswith("_") and name != "training" and isinstance(value, (bool, int, float, str, type(None)))
    }
