"""A new optimizer and a schedule that starts over: what happens to them when a generation opens."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from lightning_ke.compatibility import accumulation
from lightning_ke.optimizer_state import carry_state

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lightning_ke.compatibility import LightningModule, Trainer


@contextmanager
def generation_horizon(trainer: Trainer, epochs: int | None) -> Iterator[None]:
    """Let `trainer.max_epochs` and `trainer.estimated_stepping_batches` speak of one generation.

    A schedule that a module builds from them would otherwise decay over the whole run, although it starts over in
    every generation.

    Args:
        trainer: The Trainer whose fit loop is shortened for the duration of the block.
        epochs: Epochs of one generation; None leaves the run's own length in place.
    """
    whole_run, accumulated = trainer.fit_loop.max_epochs, trainer.accumulate_grad_batches
    if epochs is not None:
        trainer.fit_loop.max_epochs = epochs
        # Of the epoch that begins; what the Trainer has is of the epoch before, or of none in a run that is resumed.
        trainer.accumulate_grad_batches = accumulation(trainer)
    try:
        yield
    finally:
        trainer.fit_loop.max_epochs, trainer.accumulate_grad_batches = whole_run, accumulated


def install_horizon(
    trainer: Trainer, pl_module: LightningModule, epochs: Callable[[], int | None]
) -> Callable[[], None]:
    """Run the module's `configure_optimizers` under `generation_horizon` until the returned function is called.

    The strategy calls `configure_optimizers` between two callback hooks, so the method itself is wrapped for that time.

    Args:
        trainer: The Trainer.
        pl_module: The module whose `configure_optimizers` is wrapped.
        epochs: Returns the epochs of one generation; asked late, because a resumed run knows them only then.
    """
    original = pl_module.configure_optimizers
    # LightningCLI, too, puts `configure_optimizers` on the instance: then that is what has to come back.
    instance_level = "configure_optimizers" in pl_module.__dict__

    @functools.wraps(original)
    def configure_optimizers() -> Any:
        with generation_horizon(trainer, epochs()):
            return original()

    def uninstall() -> None:
        if pl_module.__dict__.get("configure_optimizers") is configure_optimizers:
            if instance_level:
                pl_module.__dict__["configure_optimizers"] = original
            else:
                del pl_module.__dict__["configure_optimizers"]

    pl_module.__dict__["configure_optimizers"] = configure_optimizers
    return uninstall


def restart_optimizers(
    trainer: Trainer,
    redrawn: Mapping[Tensor, Callable[[], Tensor]],
    *,
    optimizer: Literal["new", "keep", "clear"],
    lr_schedule: Literal["restart", "continue"],
    epochs: int,
) -> list[dict[str, Any]]:
    """Give the Trainer the optimizers and schedules with which a generation opens.

    Args:
        trainer: The Trainer, its network already redrawn.
        redrawn: For each redrawn parameter a function that returns a bool tensor of its shape, True where it was
            redrawn; so that one of them is unpacked at a time.
        optimizer: "new" forgets the optimizer's state, "keep" carries all of it over, "clear" all but what belongs to
            redrawn entries.
        lr_schedule: "restart" builds the schedule anew for one generation, "continue" goes on with the old one.
        epochs: Epochs of the generation.

    Returns:
        The groups that were added to an optimizer in the course of the training, and are so again.

    Raises:
        ValueError: If `configure_optimizers` has built other optimizers or schedules than before, so that nothing can
            be carried over.
    """
    if optimizer == "keep" and lr_schedule == "continue":
        return []
    old_optimizers = list(trainer.optimizers)
    old_schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    # Lightning has no public call for this (its issue 9982); `Strategy.setup_optimizers` is what it uses itself, and
    # keeps `LearningRateMonitor` and manual optimization right.
    with generation_horizon(trainer, epochs if lr_schedule == "restart" else None):
        trainer.strategy.setup_optimizers(trainer)
    if optimizer != "new" or lr_schedule == "continue":
        _check_count("optimizers", len(old_optimizers), len(trainer.optimizers))
    later = []
    for old, new in zip(old_optimizers, trainer.optimizers, strict=False):
        later += _add_later_groups(old, new)
        if lr_schedule == "continue":
            _continue_groups(old, new)
    if lr_schedule == "continue":
        _check_count("schedules", len(old_schedules), len(trainer.lr_scheduler_configs))
        for config, state in zip(trainer.lr_scheduler_configs, old_schedules, strict=True):
            config.scheduler.load_state_dict(state)
    if optimizer != "new":
        for old, new in zip(old_optimizers, trainer.optimizers, strict=True):
            carry_state(old, new, redrawn, optimizer)
    return later


def _check_count(what: str, old: int, new: int) -> None:
    if old != new:
        raise ValueError(
            f"Expected `configure_optimizers` to build the same {old} {what} at every call, so that what they hold can "
            f"be carried over, but got {new}. Use `optimizer='new'` and `lr_schedule='restart'`."
        )


def _add_later_groups(old: Optimizer, new: Optimizer) -> list[dict[str, Any]]:
    """Add the groups that an optimizer was given in the course of the training (by BackboneFinetuning, say) again.

    `configure_optimizers` knows nothing of them: it leaves their parameters out, or puts them into its own groups.
    """
    later = old.param_groups[len(new.param_groups) :] if type(old) is type(new) else []
    moved = {id(parameter) for group in later for parameter in group["params"]}
    for group in new.param_groups if moved else ():
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in moved]
    for group in later:
        new.add_param_group({**group, "params": list(group["params"])})
    return new.param_groups[len(new.param_groups) - len(later) :]


def _continue_groups(old: Optimizer, new: Optimizer) -> None:
    """Take over learning rates and whatever else a schedule moves (momentum, betas) group by group."""
    if len(old.param_groups) != len(new.param_groups):
        raise ValueError(
            f"Expected `configure_optimizers` to build the same {len(old.param_groups)} parameter groups at every "
            f"call because of `lr_schedule='continue'`, but got {len(new.param_groups)}. Use `lr_schedule='restart'`."
        )
    for old_group, new_group in zip(old.param_groups, new.param_groups, strict=True):
        new_group.update({key: value for key, value in old_group.items() if key != "params"})


def too_long_horizons(trainer: Trainer, epochs: int) -> list[str]:
    """Name every schedule whose own, constant horizon is longer than a generation.

    Such a schedule is restarted as it is written and never reaches its end.

    Args:
        trainer: The Trainer, its optimizers and its training batches set up.
        epochs: Epochs of one generation.
    """
    found = []
    for config in trainer.lr_scheduler_configs:
        steps: float = epochs
        if config.interval == "step" and math.isinf(trainer.num_training_batches):
            continue  # nobody knows how many steps an epoch of such a data set has
        if config.interval == "step":
            steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches) * epochs
        horizon = _horizon(config.scheduler)
        if horizon is not None and horizon * config.frequency > steps:
            name = type(config.scheduler).__name__
            found.append(f"{name} is written for {horizon} {config.interval}s, a generation has {steps:.0f}")
    return found


def _horizon(scheduler: Any) -> int | None:
    """How many calls of `step` a torch schedule is written for, None if it has no end."""
    parts = getattr(scheduler, "_schedulers", None)
    if parts:
        milestones = getattr(scheduler, "_milestones", None)
        inner = [_horizon(part) for part in parts]
        if milestones:
            return None if inner[-1] is None else int(milestones[-1]) + inner[-1]
        known = [length for length in inner if length is not None]
        return max(known, default=None)
    for attribute in ("T_max", "total_steps", "total_iters"):
        length = getattr(scheduler, attribute, None)
        if isinstance(length, (int, float)) and math.isfinite(length):
            return int(length)
    return None
