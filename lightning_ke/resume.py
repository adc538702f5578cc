"""Where in an epoch a Lightning checkpoint was written, and what Lightning has to be told to go on from there.

A checkpoint holds counters of epochs and batches, from which Lightning guesses what is left to do. It guesses right at
the end of an epoch or of a validation and between two batches, but:

- a validation that was interrupted it goes on with in the middle, or takes for done;
- behind an epoch's last batch (`ModelCheckpoint(every_n_train_steps=...)`) it takes the epoch's validation and end for
  done, although both are still to come;
- with `max_steps` it ends an epoch that has ended once more;
- it restores a resumable loader only within an epoch, so that the next epoch repeats the order of the first;
- it does not step `ReduceLROnPlateau` at the end of an epoch that it takes up, because it knows no metric then.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_ke.compatibility import class_names
from lightning_ke.loaders import (
    builds_loader,
    keeps_workers,
    loader_generators,
    loader_states,
    rebuild_iterator,
    rebuilds_iterator,
    reload_loader,
    rewind_loaders,
)
from lightning_ke.run import EvolutionRun, check_horizon

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule, Trainer


class Resumption:
    """Takes a run up exactly where its checkpoint was written; does nothing to one that begins.

    Args:
        trainer: The Trainer.
        run: The run.

    Attributes:
        idle: True until the first batch or validation of this process.
    """

    def __init__(self, trainer: Trainer, run: EvolutionRun) -> None:
        self.idle = True
        self._trainer = trainer
        self._run = run
        if trainer.precision == "64-true":
            # Lightning converts a module behind the reading of a checkpoint, whose doubles would come back as floats.
            trainer.lightning_module.double()
        self._after_optimizers = trainer.strategy.restore_checkpoint_after_setup
        self._loader_states: list[dict[str, Any]] = []
        self._plateau_is_due = False
        run.rng.generators = partial(loader_generators, trainer)

    def _continued_generators(self) -> list[torch.Generator]:
        """Generators of the loaders that go on from epoch to epoch; one that is built anew begins with its own seed."""
        schedule, clock, trainer = self._run.settings.schedule, self._run.clock, self._trainer
        # Loaders that were given to `fit` are the same ones whenever they are asked for.
        anew = (builds_loader(trainer) and trainer.fit_loop._data_source.is_module()) or (
            schedule is not None and clock.redraw_is_due
        )
        return [] if anew else loader_generators(trainer)

    def read(self, trainer: Trainer, checkpoint: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Complete a checkpoint's counters, in place, before Lightning reads them.

        Args:
            trainer: The Trainer, its data attached.
            checkpoint: The checkpoint that Lightning has read.
            state: What it holds of the run.

        Raises:
            ValueError: If it is of a run that was none of this callback's.
        """
        if not state:
            raise ValueError(
                "Expected a checkpoint of a run with KnowledgeEvolution, but it holds no state of one. Load its "
                "weights into the module and begin a new run (`load_from_checkpoint`, then `fit` without `ckpt_path`)."
            )
        unfreeze_again(trainer, checkpoint)
        self._loader_states = loader_states(checkpoint)
        self._plateau_is_due = complete_progress(trainer, checkpoint, bool(state.get("validating")))

    def check(self) -> None:
        """Refuse schedules that were built before the checkpoint was read and do not fit its generation."""
        if self._after_optimizers:
            check_horizon(self._run)

    def before_first_sampler(self, trainer: Trainer) -> None:
        """Go on with the checkpoint's random numbers, or keep the run's first, before a sampler draws from them.

        Args:
            trainer: The Trainer before its loaders are built; `configure_optimizers` may have built them already.
        """
        rng = self._run.rng
        if not self._run.resumed:
            rng.gather()
            rng.hold()  # the first epoch's order is drawn before a hook says that it begins
        elif trainer.fit_loop._combined_loader is None:
            rng.restore()

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is left to do of the checkpoint's epoch, or go on within it.

        Args:
            trainer: The Trainer at the beginning of the training.
            pl_module: The module.

        Raises:
            ValueError: If the Trainer has trained before, but not in generations.
        """
        self.idle = True
        run = self._run
        if not run.resumed and trainer.current_epoch > 0:
            raise ValueError(
                f"Expected a Trainer that trains in generations from its first epoch on, but this one has trained "
                f"{trainer.current_epoch} epochs without this callback. Give it the callback that it had, or train "
                "on with a new Trainer."
            )
        if run.resumed and not between_epochs(trainer):
            # The loader's iterator, built in vain or put back to where it was, has drawn.
            run.rng.restore(loader_generators(trainer))
        elif run.resumed:
            begin_next_epoch(trainer)
            if self._plateau_is_due:
                step_plateau_schedules(trainer, pl_module, run.records.metrics)
            rewind_loaders(trainer, self._loader_states)
        if run.resumed:
            end_epoch_in_full(trainer)
            tell_of_sums(trainer)
            tell_of_workers(trainer)
        self._loader_states = []

    def begin_epoch(self, trainer: Trainer) -> None:
        """Take back what was drawn since the process began, and keep what this epoch begins with.

        Args:
            trainer: The Trainer at the beginning of an epoch, before any hook of module or callbacks.
        """
        if self._run.resumed and self.idle and rebuilds_iterator(trainer):
            self._run.rng.restore(self._continued_generators())
            if builds_loader(trainer):
                reload_loader(trainer)  # so late that what it draws is drawn behind what was restored
        if trainer.current_epoch > 0:
            self._run.rng.hold()

    def end_epoch(self, pl_module: LightningModule) -> None:
        """Give the checkpoint's metrics to whatever monitors one, if this process has validated nothing itself.

        Args:
            pl_module: The module at the end of an epoch.
        """
        if self._run.resumed and self.idle:
            self._run.records.tell(pl_module)


def unfreeze_again(trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
    """Let what a BaseFinetuning had unfrozen be trained on; when a run is resumed it freezes all of it again.

    Args:
        trainer: The Trainer, its callbacks set up and its optimizers not yet.
        checkpoint: The checkpoint that Lightning has read.
    """
    states = [
        checkpoint["callbacks"].get(callback.state_key, {})
        for callback in trainer.callbacks
        if "BaseFinetuning" in class_names(callback)
    ]
    # It keeps the names of every optimizer's parameters, group by group; those behind the first it has added.
    added = {
        name
        for state in states
        for groups in state.get("internal_optimizer_metadata", {}).values()
        for group in groups[1:]
        for name in group["params"]
    }
    for name, parameter in trainer.lightning_module.named_parameters():
        if name in added:
            parameter.requires_grad = True


def complete_progress(trainer: Trainer, checkpoint: Mapping[str, Any], validating: bool) -> bool:
    """Let the counters of a checkpoint say what is left to do, in place, before Lightning reads them.

    Args:
        trainer: The Trainer, its data attached.
        checkpoint: The checkpoint that Lightning has read.
        validating: True if it was written in the middle of a validation (an exception, a signal of the cluster).

    Returns:
        True if the epoch has ended, but for the step of schedules that wait for a metric (`step_plateau_schedules`).
    """
    loops = checkpoint["loops"]["fit_loop"]
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    batch_has_ended = batch["total"]["completed"] == batch["total"]["processed"] - 1  # in `on_train_batch_end`
    if batch["total"]["processed"] < batch["total"]["ready"]:
        rank_zero_warn(
            "KnowledgeEvolution: the checkpoint was written within a training batch (an exception or a signal came in "
            "the middle of it). The batch is left out, so from here on the run differs from an uninterrupted one."
        )
    elif validating or (batch_has_ended and _validation_is_due(trainer, epoch, batch)):
        if batch_has_ended:
            _count(batch, "completed")
        # As if it had been interrupted before its first batch: Lightning then begins it again.
        validation = loops["epoch_loop.val_loop.batch_progress"]
        validation["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        validation["current"] |= {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    elif batch_has_ended and batch["is_last_batch"]:
        _count(batch, "completed")
        _count(epoch, "processed")
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    ended = epoch["current"]["processed"] == epoch["current"]["ready"]
    before_schedules = ended and epoch["current"]["completed"] < epoch["current"]["processed"]
    if trainer.max_steps != -1 and ended:
        # A run limited by steps goes on with the epoch of the last `completed`.
        for counter in epoch.values():
            counter["completed"] = counter["processed"]
    return bool(before_schedules)


def _count(progress: dict[str, Any], event: str) -> None:
    for scope in ("total", "current"):
        progress[scope][event] += 1


def _validation_is_due(trainer: Trainer, epoch: Mapping[str, Any], batch: Mapping[str, Any]) -> bool:
    """True if Lightning validates after the batch that the counters speak of."""
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return False  # Lightning keeps no account of the time since the last one
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    if not trainer.enable_validation or (every is not None and (epoch["current"]["processed"] + 1) % every != 0):
        return False
    seen = batch["total" if every is None else "current"]["processed"]
    if isinstance(interval, int):
        return bool(seen % interval == 0)
    # A share of the epoch, which is known at its last batch; a validation within it is left to Lightning.
    return bool(batch["is_last_batch"]) and (interval == 1.0 or seen % max(1, int(seen * interval)) == 0)


def between_epochs(trainer: Trainer) -> bool:
    """True if nothing is left to do of the checkpoint's last epoch.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
    """
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.ready == progress.processed)


def begin_next_epoch(trainer: Trainer) -> None:
    """Let a resumed run begin an epoch that has not begun, also one that is limited by steps.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
    """
    # Lightning takes every run with `max_steps` for one that goes on within an epoch.
    trainer.fit_loop.epoch_loop.restarting = False
    rebuild_iterator(trainer)


def end_epoch_in_full(trainer: Trainer) -> None:
    """Let the end of the epoch that a resumed run takes up step every schedule.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
    """
    trainer.fit_loop._restarting = False  # its setter would keep it for a run that is limited by steps


def tell_of_sums(trainer: Trainer) -> None:
    """Say if DDP sums the gradients of the first step in another order than in a run that was not interrupted.

    Every process sums its first step's gradients in one bucket, in the order of the parameters, and all later ones in
    buckets in the order in which gradients are ready. Where in a bucket a gradient lies decides from which rank on it
    is summed, which rounds differently from three ranks on.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
    """
    wrapped = trainer.strategy.model
    named = "DistributedDataParallel" in class_names(wrapped)
    if named and trainer.world_size > 2 and not wrapped.find_unused_parameters:
        rank_zero_info(
            "KnowledgeEvolution: DDP arranges its buckets anew behind a process's first step. The gradients of this "
            f"run's first step are summed over {trainer.world_size} processes in another order than in a run that was "
            "not interrupted, a difference in the last bit. Runs with `DDPStrategy(find_unused_parameters=True)` "
            "resume bit for bit."
        )


def tell_of_workers(trainer: Trainer) -> None:
    """Say if loader workers drew from generators that no checkpoint holds.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
    """
    if keeps_workers(trainer):
        rank_zero_warn(
            "KnowledgeEvolution: the loader has `persistent_workers=True`. What its worker processes draw (random "
            "crops and the like) goes on from epoch to epoch in them and in no checkpoint, so from here on it differs "
            "from an uninterrupted run. Use `persistent_workers=False` for an exact resume."
        )


def step_plateau_schedules(trainer: Trainer, pl_module: LightningModule, metrics: Mapping[str, float]) -> None:
    """Step the schedules that wait for a metric, as at the end of the checkpoint's epoch.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
        pl_module: The module, whose `lr_scheduler_step` is called.
        metrics: The metrics of that epoch.

    Raises:
        ValueError: If the metric of a schedule is not among them.
    """
    for config in trainer.lr_scheduler_configs if pl_module.automatic_optimization else ():
        if not config.reduce_on_plateau or config.interval != "epoch" or trainer.current_epoch % config.frequency:
            continue
        if config.monitor in metrics:
            pl_module.lr_scheduler_step(config.scheduler, metrics[config.monitor])
        elif config.strict:
            raise ValueError(
                f"Expected the checkpoint to hold the metric {config.monitor!r}, for which "
                f"{type(config.scheduler).__name__} waits at the end of an epoch, but it holds "
                f"{', '.join(metrics) or 'none'}. Log it in `validation_step` or `training_step`."
            )
