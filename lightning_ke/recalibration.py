"""BatchNorm statistics of a fit hypothesis, re-estimated: without them an early one looks far worse than it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_ke.fit_copy import redirect, restore_class

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule


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


def recalibrate_norm(slim: LightningModule, batches: Iterable[Any], dense: LightningModule) -> None:
    """Re-estimate the BatchNorm statistics of a slim LightningModule by its own `training_step`.

    Args:
        slim: The slim module.
        batches: Batches of training data, for example the training loader; they reach the step as in a training: moved
            to the module's device, through the transfer hooks of module and data module.
        dense: The module that it was cut from, whose Trainer the step may ask.

    Raises:
        ValueError: If there is no batch.
        TypeError: If `batches` is nothing to iterate over.
    """
    if not isinstance(batches, Iterable):
        raise TypeError(
            "Expected argument `recalibrate` to yield batches of training data, as a DataLoader does, but got "
            f"{batches!r}."
        )
    trainer = dense._trainer

    def as_in_training(batch: Any) -> Any:
        if trainer is not None:
            batch = trainer.precision_plugin.convert_input(batch)
        # The dense module's hooks: Lightning takes those of the module that the Trainer has for its own.
        return dense._apply_batch_transfer_handler(dense._on_before_batch_transfer(batch), device=slim.device)

    redirect(slim, lambda *_, **__: None)
    slim.trainer = trainer
    try:
        used = reestimate_norm(slim, training_step_runner(slim), map(as_in_training, batches))
    finally:
        slim.trainer = None
        restore_class(slim)
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
