"""Scores the fit hypothesis on the batches on which the dense network is validated anyway.

A private copy of the LightningModule, its network cut down to the fit hypothesis, runs the user's own
`validation_step`. What it logs goes through Lightning under ``ke/fit/``, so that reductions, loggers and
`ModelCheckpoint(monitor=...)` treat it like any other metric.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn

from lightning_ke.fit_copy import plain_attributes, private_copy, redirect
from lightning_ke.flow.dry import without_data
from lightning_ke.masks import Mask
from lightning_ke.naming import named_buffers, named_parameters
from lightning_ke.recalibration import reestimate_norm, training_step_runner
from lightning_ke.sharding import has_shards, settle
from lightning_ke.slim import SlimError, narrowing, proof_fits, refresh, tell_sizes, verify_slim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning_ke.compatibility import LightningModule, Trainer
    from lightning_ke.run import EvolutionRun

#: What every metric of the fit hypothesis is called: this, then the name under which the module logs it.
FIT_PREFIX = "ke/fit/"
#: Training batches of an epoch that are remembered at most for re-estimating BatchNorm statistics.
RECALIBRATION_BATCHES = 16


class FitScorer:
    """Runs the user's validation on the fit hypothesis.

    Args:
        pl_module: The LightningModule, on its device.
        mask: Which of its weights are fit.
        fit_norm: "dense" scores with the dense network's BatchNorm statistics, "reestimate" with statistics that are
            re-estimated for the fit hypothesis on training batches.
        recent: The training batches for it.

    Attributes:
        reason: Why a structured split's fit hypothesis is scored as a masked network and not as a slim one, else None.
    """

    def __init__(
        self, pl_module: LightningModule, mask: Mask, fit_norm: str = "dense", recent: Collection[Any] = ()
    ) -> None:
        self._mask = mask
        self._fit_norm = fit_norm
        self._batch: Any = None
        self._stale = True
        self._recent = recent
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
        self._plain = plain_attributes(pl_module)
        redirect(self._copy, self._log)
        self._route: tuple[LightningModule, str] | None = None

    def refresh(self, pl_module: LightningModule) -> None:
        """Take over the dense network's present weights and statistics.

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
        if self._fit_norm == "reestimate" and self._recent:
            reestimate_norm(self._copy, training_step_runner(self._copy), self._recent)
        elif self._fit_norm == "reestimate":
            rank_zero_warn(
                "KnowledgeEvolution: this validation scores the fit hypothesis with the dense network's BatchNorm "
                "statistics, because the training goes on with a validation and has seen no batch to re-estimate them."
            )

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the copy's own `on_validation_start` and `on_validation_epoch_start`."""
        self._stale = True
        for hook in ("on_validation_start", "on_validation_epoch_start"):
            self._run_hook(trainer, pl_module, hook)

    def begin_batch(self, pl_module: LightningModule, batch: Any) -> None:
        """Put a copy of the batch aside, before the module's `validation_step` may change it.

        Args:
            pl_module: The dense LightningModule, whose plain attributes are taken over before the first batch.
            batch: The batch, on its device.
        """
        if self._stale:
            for name, value in plain_attributes(pl_module).items():
                if self._plain.get(name) != value:
                    setattr(self._copy, name, value)
                    self._plain[name] = value
        try:
            self._batch = copy.deepcopy(batch)
        except Exception as error:
            raise ValueError(
                f"Expected a validation batch that can be copied, so that the fit hypothesis is scored on it, too, but "
                f"copying a {type(batch).__name__} failed ({error}). Let the loader yield tensors in plain containers, "
                "or use `score_fit=False`."
            ) from error

    def score_batch(self, trainer: Trainer, pl_module: LightningModule, batch_idx: int, dataloader_idx: int) -> None:
        """Run the copy's own `validation_step`, and its hooks around it, on the batch that was put aside.

        Args:
            trainer: The Trainer.
            pl_module: The dense LightningModule, through which the copy's metrics are logged and whose weights are
                taken over with the first batch.
            batch_idx: Index of the batch.
            dataloader_idx: Index of its loader.
        """
        if self._stale:
            # By now weight averaging has put those weights in place that are validated, and DDP the first rank's
            # BatchNorm statistics, with which all ranks validate the dense network.
            self.refresh(pl_module)
            self._stale = False
        batch, self._batch = self._batch, None
        loop = trainer.fit_loop.epoch_loop.val_loop
        one_after_the_other = loop._is_sequential and loop.num_dataloaders > 1  # else a batch is one of all loaders
        indices = (batch_idx, dataloader_idx) if one_after_the_other else (batch_idx,)
        self._run_hook(trainer, pl_module, "on_validation_batch_start", batch, *indices)
        takes_index = is_param_in_hook_signature(self._copy.validation_step, "batch_idx", min_args=2)
        with self._running(trainer, pl_module, "validation_step"), trainer.precision_plugin.val_step_context():
            outputs = self._copy.validation_step(batch, *(indices if takes_index else indices[1:]))
        self._run_hook(trainer, pl_module, "on_validation_batch_end", outputs, batch, *indices)

    def end_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the copy's own `on_validation_epoch_end`."""
        self._run_hook(trainer, pl_module, "on_validation_epoch_end")

    def end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the copy's own `on_validation_end`."""
        self._run_hook(trainer, pl_module, "on_validation_end")

    def _run_hook(self, trainer: Trainer, pl_module: LightningModule, hook: str, *args: Any) -> None:
        with self._running(trainer, pl_module, hook):
            getattr(self._copy, hook)(*args)

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
        except Exception as error:
            raise RuntimeError(
                f"Expected `{hook}` of {type(pl_module).__name__} to run on a copy of the module that scores the fit "
                f"hypothesis, but it failed there ({type(error).__name__}: {error}). The copy has its own weights, "
                "metrics and attributes, runs the hooks of a validation alone, and has no logger. Change the method so "
                "that it runs in such a copy, or use `score_fit=False`."
            ) from error
        finally:
            pl_module._current_fx_name = outer
            self._route = None

    def _log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        if self._route is None:  # re-estimating statistics: nothing of that is a metric
            return
        if isinstance(value, nn.Module):
            # Lightning would look a metric object up among the attributes of the dense module.
            kwargs.setdefault("metric_attribute", f"{FIT_PREFIX}{name}")
        pl_module, hook = self._route
        # The dense module is always ahead of its copy. At a first batch Lightning would take the copy's hook for the
        # beginning of an epoch, and forget what the dense one has logged there.
        pl_module.trainer._logger_connector._current_fx = hook
        pl_module.log(f"{FIT_PREFIX}{name}", value, *args, **kwargs)


class FitValidations:
    """Decides which validations score the fit hypothesis, and keeps what does.

    Args:
        when: "epoch" scores in every validation, "generation" in the last one of each generation, False never.
        fit_norm: As for `FitScorer`.

    Attributes:
        active: What scores the validation in progress, None if nothing does.
    """

    def __init__(self, when: Literal["epoch", "generation", False], fit_norm: str) -> None:
        self.active: FitScorer | None = None
        self._when = when
        self._fit_norm = fit_norm
        self._scorer: FitScorer | None = None
        self._recent: deque[Any] = deque(maxlen=RECALIBRATION_BATCHES)

    def check(self, pl_module: LightningModule) -> None:
        """Refuse a module that cannot be copied before it is trained, not in its first validation.

        Args:
            pl_module: The LightningModule.

        Raises:
            ValueError: If it holds what cannot be copied.
        """
        if self._when:
            private_copy(pl_module, without_data)

    def forget(self) -> None:
        """Let go of a copy that was cut by another mask, or belongs to another run."""
        self.active = self._scorer = None
        self.forget_batches()

    def forget_batches(self) -> None:
        """Let go of the last epoch's batches: a run that goes on from a checkpoint of its end does not have them."""
        self._recent.clear()

    def begin(self, trainer: Trainer, pl_module: LightningModule, run: EvolutionRun) -> None:
        """Decide about a validation, and build what scores it.

        Args:
            trainer: The Trainer at the beginning of a validation.
            pl_module: The dense LightningModule.
            run: The run.
        """
        self.active = None
        if run.split.mask is None or not self._is_due(trainer, run):
            return
        if self._scorer is None:
            self._scorer = FitScorer(pl_module, run.split.mask, self._fit_norm, self._recent)
            if self._scorer.reason is not None:
                rank_zero_warn(
                    "KnowledgeEvolution: the fit hypothesis is scored as a masked network because it cannot be cut out "
                    f"as a slim one: {self._scorer.reason}"
                )
        self.active = self._scorer

    def _is_due(self, trainer: Trainer, run: EvolutionRun) -> bool:
        if self._when != "generation":
            return self._when == "epoch"
        # True if no later validation falls into this generation, or if nobody can say.
        end, every, interval = (
            run.clock.first_epoch + run.horizon,
            trainer.check_val_every_n_epoch,
            trainer.val_check_batch,
        )
        if interval is None:  # it is a time
            return True
        if every is not None:
            return bool(trainer.current_epoch + every >= end)
        seen = trainer.fit_loop.epoch_loop.batch_idx + 1
        left = (end - trainer.current_epoch) * trainer.num_training_batches - seen
        return left == math.inf or bool(left < interval)

    def remember(self, batch: Any) -> None:
        """Keep a training batch if statistics are to be re-estimated on the last ones.

        Args:
            batch: The batch, on its device.
        """
        if self._fit_norm == "reestimate" and self._when:
            self._recent.append(batch)


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
