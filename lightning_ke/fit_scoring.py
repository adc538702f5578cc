"""Scores the fit hypothesis on the batches on which the dense network is validated anyway.

A private copy of the LightningModule, its network cut down to the fit hypothesis, runs the user's own
`validation_step`. What it logs goes through Lightning under ``ke/fit/``, so that reductions, loggers and
`ModelCheckpoint(monitor=...)` treat it like any other metric.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_ke.masks import Mask
from lightning_ke.naming import named_buffers, named_parameters
from lightning_ke.sharding import has_shards, is_mesh, plain_modules, settle
from lightning_ke.slim import SlimError, narrowing, proof_fits, refresh, tell_sizes, verify_slim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning_ke.compatibility import LightningModule, Trainer

#: What every metric of the fit hypothesis is called: this, then the name under which the module logs it.
FIT_PREFIX = "ke/fit/"
#: Training batches that are remembered for re-estimating BatchNorm statistics.
RECALIBRATION_BATCHES = 16


class _Silent:
    """Stands in for loggers, optimizers and schedulers: whatever the copy does to them has no effect."""

    def __getattr__(self, name: str) -> Any:
        return _Silent()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Silent()

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _FitCopy:
    """What a copy of a LightningModule does differently: it logs elsewhere and steps nothing.

    Mixed into the copy's own class, so that `super()` and `isinstance` in the user's code keep working.
    """

    ke_log: Callable[..., None]

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
        return _Silent()

    def lr_schedulers(self) -> Any:
        return _Silent()

    def manual_backward(self, *args: Any, **kwargs: Any) -> None:
        """Compute no gradient."""

    def toggle_optimizer(self, *args: Any, **kwargs: Any) -> None:
        """Leave `requires_grad` alone."""

    def untoggle_optimizer(self, *args: Any, **kwargs: Any) -> None:
        """Leave `requires_grad` alone."""

    def clip_gradients(self, *args: Any, **kwargs: Any) -> None:
        """There are no gradients."""


def private_copy(pl_module: LightningModule, convert: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    """Deep-copy a LightningModule without the Trainer, loggers, loaders and optimizers that it refers to.

    Args:
        pl_module: The module; its copy shares the Trainer and has its own weights, buffers and metric objects.
        convert: Makes the copy of a parameter or buffer; None copies it as it is.
    """
    shared: dict[int, Any] = {}
    for module in pl_module.modules():
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
        with plain_modules(pl_module):
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


class FitScorer:
    """Runs the user's validation on the fit hypothesis.

    Args:
        pl_module: The LightningModule, on its device.
        mask: Which of its weights are fit.
        fit_norm: "dense" scores with the dense network's BatchNorm statistics, "reestimate" with statistics that are
            re-estimated for the fit hypothesis on the last training batches.

    Attributes:
        reason: Why a structured split's fit hypothesis is scored as a masked network and not as a slim one, else None.
    """

    def __init__(self, pl_module: LightningModule, mask: Mask, fit_norm: str = "dense") -> None:
        self._mask = mask
        self._fit_norm = fit_norm
        self._batch: Any = None
        self._stale = True
        self.recent: deque[Any] = deque(maxlen=RECALIBRATION_BATCHES)
        self.reason: str | None = None
        self.slim = mask.structure is not None
        settle(pl_module)
        if mask.structure is not None:
            try:
                self._copy = private_copy(pl_module, narrowing(pl_module, mask.structure))
                tell_sizes(self._copy, mask.structure)
                prove(self._copy, pl_module, mask)
            except SlimError as error:
                if has_shards(pl_module):  # a masked network would be as large as the one that no rank holds whole
                    raise
                self.slim, self.reason = False, str(error)
        if not self.slim:
            self._copy = private_copy(pl_module)
        self._plain = _plain_attributes(pl_module)
        _redirect(self._copy, self._log)
        self._route: tuple[LightningModule, str] | None = None

    def refresh(self, pl_module: LightningModule) -> None:
        """Take over the dense network's present weights, statistics and plain attributes.

        Args:
            pl_module: The dense LightningModule.
        """
        self._copy.eval()
        settle(pl_module)
        if self.slim:
            assert self._mask.structure is not None
            refresh(self._copy, pl_module, self._mask.structure)
        else:
            _refresh_masked(self._copy, pl_module, self._mask)
        for name, value in _plain_attributes(pl_module).items():
            if self._plain.get(name) != value:
                setattr(self._copy, name, value)
                self._plain[name] = value
        if self._fit_norm == "reestimate" and self.recent:
            reestimate_norm(self._copy, training_step_runner(self._copy), self.recent)

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the copy's own `on_validation_epoch_start`."""
        self._stale = True
        with self._running(trainer, pl_module, "on_validation_epoch_start"):
            self._copy.on_validation_epoch_start()

    def begin_batch(self, pl_module: LightningModule, batch: Any) -> None:
        """Put a copy of the batch aside, before the module's `validation_step` may change it.

        Args:
            pl_module: The dense LightningModule, whose weights are taken over before the first batch.
            batch: The batch, on its device.
        """
        if self._stale:
            # Not when the epoch begins: by now weight averaging has put those weights in place that are validated.
            self.refresh(pl_module)
            self._stale = False
        self._batch = copy.deepcopy(batch)

    def score_batch(self, trainer: Trainer, pl_module: LightningModule, batch_idx: int, dataloader_idx: int) -> None:
        """Run the copy's own `validation_step` on the batch that was put aside.

        Args:
            trainer: The Trainer.
            pl_module: The dense LightningModule, through which the copy's metrics are logged.
            batch_idx: Index of the batch.
            dataloader_idx: Index of its loader.
        """
        arguments: tuple[Any, ...] = (self._batch,)
        self._batch = None
        if is_param_in_hook_signature(self._copy.validation_step, "batch_idx", min_args=2):
            arguments += (batch_idx,)
        if len(trainer.num_val_batches) > 1:
            arguments += (dataloader_idx,)
        with self._running(trainer, pl_module, "validation_step"), trainer.precision_plugin.val_step_context():
            self._copy.validation_step(*arguments)

    def end_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the copy's own `on_validation_epoch_end`."""
        with self._running(trainer, pl_module, "on_validation_epoch_end"):
            self._copy.on_validation_epoch_end()

    @contextmanager
    def _running(self, trainer: Trainer, pl_module: LightningModule, hook: str) -> Iterator[None]:
        """Log as the module's own hook would, and leave the training's random numbers alone."""
        outer = pl_module._current_fx_name
        # The metrics must belong to the same hook as the dense ones: Lightning derives from it whether a metric is
        # logged per step or per epoch, and forgets the values of a loader when the hook's name changes.
        pl_module._current_fx_name = hook
        self._route = (pl_module, hook)
        try:
            with isolate_rng(include_cuda=trainer.strategy.root_device.type == "cuda"):
                yield
        finally:
            pl_module._current_fx_name = outer
            self._route = None

    def _log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if self._route is None:  # re-estimating statistics: nothing of that is a metric
            return
        if isinstance(value, nn.Module):
            # Lightning would look a metric object up among the attributes of the dense module.
            kwargs.setdefault("metric_attribute", f"{FIT_PREFIX}{name}")
        self._route[0].log(f"{FIT_PREFIX}{name}", value, *args, **kwargs)


def prove(slim: nn.Module, model: nn.Module, mask: Mask) -> None:
    """Prove a slim network, or say that this takes more memory than a rank of a sharded network should be asked for.

    Args:
        slim: The slim network.
        model: The dense network.
        mask: The mask of a structured split.

    Raises:
        SlimError: If the proof fails.
    """
    if proof_fits(model):
        verify_slim(slim, model, mask)
    else:
        rank_zero_warn(
            "KnowledgeEvolution: the slim network of this sharded network is used without proof, for which every rank "
            "would have to hold the whole network in double precision. Prove it once in one process: "
            "`extract_slim(model, mask)`."
        )


def _redirect(pl_module: Any, log: Callable[..., None]) -> None:
    """Let a copy of a LightningModule log through a function and step nothing."""
    kind = type(pl_module)
    pl_module.__class__ = type(kind.__name__, (_FitCopy, kind), {"__module__": kind.__module__})
    pl_module.__dict__["ke_log"] = log


def _plain_attributes(pl_module: LightningModule) -> dict[str, Any]:
    """Attributes of the module itself that a training may change (a margin, a temperature, a phase)."""
    return {
        name: value
        for name, value in vars(pl_module).items()
        if not name.startswith("_") and name != "training" and isinstance(value, (bool, int, float, str, type(None)))
    }


@torch.no_grad()
def _refresh_masked(twin: nn.Module, model: nn.Module, mask: Mask) -> None:
    """Copy the dense weights, zero outside the fit hypothesis, one parameter at a time."""
    dense = dict(named_parameters(model))
    for name, parameter in named_parameters(twin):
        parameter.copy_(dense[name])
        if name in mask:
            parameter.mul_(mask[name].to(parameter.device))
    buffers = dict(named_buffers(model))
    for name, buffer in named_buffers(twin):
        buffer.copy_(buffers[name])


def reestimate_norm(model: nn.Module, run: Callable[[Any], Any], batches: Iterable[Any]) -> int:
    """Re-estimate the statistics of every BatchNorm as the plain mean over some batches.

    Without it an early fit hypothesis looks far worse than it is: it was never trained alone, and the dense network's
    statistics are not its own.

    Args:
        model: The network whose statistics are replaced; no weight changes.
        run: Runs the network on one batch.
        batches: Batches of training data.

    Returns:
        Number of batches that were used.
    """
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    if not norms:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = [module.momentum for module in norms]
    model.eval()  # so that dropout does not blur the estimate
    used = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then keeps the cumulative mean
            norm.train()
        with torch.no_grad(), isolate_rng():
            for batch in batches:
                run(copy.deepcopy(batch))
                used += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    return used


def recalibrate_norm(slim: LightningModule, batches: Iterable[Any]) -> None:
    """Re-estimate the BatchNorm statistics of a slim LightningModule by its own `training_step`.

    Args:
        slim: The slim module.
        batches: Batches of training data, for example the training loader; they are moved to the module's device.

    Raises:
        ValueError: If there is no batch.
    """
    kind = type(slim)
    _redirect(slim, lambda *_, **__: None)
    try:
        step = training_step_runner(slim)
        moved = (slim.transfer_batch_to_device(batch, slim.device, 0) for batch in batches)
        used = reestimate_norm(slim, step, moved)
    finally:
        slim.__class__ = kind
        del slim.__dict__["ke_log"]
    if used == 0 and any(isinstance(module, _NormBase) for module in slim.modules()):
        raise ValueError("Expected argument `recalibrate` to yield at least one batch, but it yielded none.")


def training_step_runner(pl_module: Any) -> Callable[[Any], Any]:
    """Return a function that runs a module's `training_step` on a batch, whether or not it takes a batch index.

    Args:
        pl_module: A LightningModule.
    """
    if is_param_in_hook_signature(pl_module.training_step, "batch_idx", min_args=2):
        return lambda batch: pl_module.training_step(batch, 0)
    return lambda batch: pl_module.training_step(batch)


def metrics_of_validation(metrics: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Split what a validation logged into the dense network's metrics and the fit hypothesis's.

    Args:
        metrics: Values by the name under which they were logged.

    Returns:
        The dense network's and the fit hypothesis's metrics, both under the module's own names.

    Example:
        >>> metrics_of_validation({"val_acc": 0.5, "ke/fit/val_acc": 0.25})
        ({'val_acc': 0.5}, {'val_acc': 0.25})
    """
    dense = {name: float(value) for name, value in metrics.items() if not name.startswith("ke/")}
    fit = {name[len(FIT_PREFIX) :]: float(value) for name, value in metrics.items() if name.startswith(FIT_PREFIX)}
    return dense, fit
