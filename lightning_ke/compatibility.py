"""What the callback works with, and what it refuses before the first batch."""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning.pytorch.callbacks import Callback as LightningCallback
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from pytorch_lightning.callbacks import Callback as PytorchLightningCallback
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_ke.phases import Phase
    from lightning_ke.resets import Reset
    from lightning_ke.splits import Split

# A Trainer or module of either of Lightning's two namespaces. Neither says all its attributes to a type checker.
Trainer: TypeAlias = Any
LightningModule: TypeAlias = Any

# Checked by class name, because the classes exist once in `lightning.pytorch` and once in `pytorch_lightning`.
_REFUSED_STRATEGIES = {
    "DeepSpeedStrategy": "keeps its optimizer inside its engine, where no generation can give it a new one",
    "FSDPStrategy": "shards flattened parameters, in which no channel can be told from another",
}
_REFUSED_CALLBACKS = {
    "StochasticWeightAveraging": "rewrites the training's length and schedule, which restart with every generation",
    "BatchSizeFinder": "trains and rewinds the network again and again before the training begins",
    "ModelPruning": "reparametrises the weights that a generation redraws",
}


class AnyNamespaceCallback(LightningCallback, PytorchLightningCallback):  # type: ignore[misc]  # each hook has two Trainers
    """A callback that the Trainers and the CLIs of `lightning.pytorch` and of `pytorch_lightning` both accept."""


def class_names(item: object) -> set[str]:
    """Names of an object's class and of all the classes that it inherits from.

    Args:
        item: Any object.

    Example:
        >>> sorted(class_names(True))
        ['bool', 'int', 'object']
    """
    return {kind.__name__ for kind in type(item).__mro__}


def check_trainer(trainer: Trainer, pl_module: LightningModule, score_fit: object) -> None:
    """Refuse what cannot work together, before anything is drawn.

    Args:
        trainer: The Trainer with all its callbacks.
        pl_module: The module to be trained.
        score_fit: The callback's argument of that name.

    Raises:
        ValueError: Naming what is refused, why, and what to do.
    """
    for name, why in _REFUSED_STRATEGIES.items():
        if name in class_names(trainer.strategy):
            raise ValueError(
                f"KnowledgeEvolution does not support {name}: it {why}. Use `ModelParallelStrategy` (FSDP2 and tensor "
                "parallelism), `strategy='ddp'` or one device."
            )
    for name, why in _REFUSED_CALLBACKS.items():
        if any(name in class_names(callback) for callback in trainer.callbacks):
            raise ValueError(f"KnowledgeEvolution does not work beside {name}: it {why}. Remove one of the two.")
    ours = [callback for callback in trainer.callbacks if "KnowledgeEvolution" in class_names(callback)]
    if len(ours) > 1:
        raise ValueError(
            f"Expected one KnowledgeEvolution callback, but the Trainer has {len(ours)}: they would redraw each "
            "other's weights. To combine splits, give one callback one composed split."
        )
    _check_listener(pl_module)
    _check_listener(trainer.datamodule)
    if score_fit and is_param_in_hook_signature(pl_module.validation_step, "dataloader_iter", explicit=True):
        raise ValueError(
            "Expected `validation_step` to take a batch so that the fit hypothesis can be scored on it, but it takes "
            "the loader's iterator. Take a batch, or use `score_fit=False`."
        )
    if score_fit != "epoch":
        for callback in trainer.callbacks:
            monitor: Any = getattr(callback, "monitor", None)
            if isinstance(monitor, str) and monitor.startswith("ke/fit/"):
                raise ValueError(
                    f"{type(callback).__name__} monitors `{monitor}`, which is not there in every epoch with "
                    f"`score_fit={score_fit!r}`. Use `score_fit='epoch'`, or monitor a metric of the dense network."
                )


def _check_listener(listener: object) -> None:
    """Refuse hooks that would fail when the first generation is over."""
    for hook in ("on_generation_end", "on_generation_start"):
        if hasattr(listener, hook) and not _takes_one(getattr(listener, hook)):
            raise ValueError(
                f"Expected `{hook}` of {type(listener).__name__} to take the number of the generation. Write "
                f"`def {hook}(self, generation)`."
            )


def _takes_one(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(1)
    except TypeError:
        return False
    return True


@contextmanager
def untoggled(pl_module: LightningModule) -> Iterator[None]:
    """Let parameters need a gradient as they do when no optimizer is toggled, which would pass for frozen ones.

    Args:
        pl_module: The module, maybe between `toggle_optimizer` and `untoggle_optimizer`.
    """
    parameters: dict[Tensor, bool] = dict(getattr(pl_module, "_param_requires_grad_state", {}))
    toggled = {parameter: parameter.requires_grad for parameter in parameters}
    try:
        for parameter, needed in parameters.items():
            parameter.requires_grad = needed
        yield
    finally:
        for parameter, needed in toggled.items():
            parameter.requires_grad = needed


def check_sharding(trainer: Trainer, split: Split, reset: Reset, phases: Sequence[Phase], score_fit: object) -> None:
    """Refuse what would need a whole network where each rank holds a part of it.

    Args:
        trainer: The Trainer.
        split: The split.
        reset: The reset.
        phases: The callback's argument of that name.
        score_fit: The callback's argument of that name.

    Raises:
        ValueError: Naming what is refused, why, and what to do.
    """
    if "ModelParallelStrategy" not in class_names(trainer.strategy):
        return
    if split.reads_values:
        raise ValueError(
            f"KnowledgeEvolution does not support split {split.name!r} with ModelParallelStrategy: it judges weights "
            "by their values or gradients, of which each rank holds a part. Use 'kels', 'wels', 'layers' or "
            "another split that does not look at them, or `strategy='ddp'`."
        )
    if reset.keeps_values:
        raise ValueError(
            f"KnowledgeEvolution does not support reset {reset.name!r} with ModelParallelStrategy: it keeps values of "
            "the whole network, of which each rank holds a part. Use `reset='layer'` or another one, or "
            "`strategy='ddp'`."
        )
    if phases:
        raise ValueError(
            f"KnowledgeEvolution does not support phase {phases[0].name!r} with ModelParallelStrategy: it acts on "
            "whole weights, of which each rank holds a part. Leave `phases` out, or use `strategy='ddp'`."
        )
    if score_fit and not split.structured:
        raise ValueError(
            f"Expected `score_fit=False` for split {split.name!r} with ModelParallelStrategy, but got {score_fit!r}: "
            "its fit hypothesis is as large as the network, which no rank holds whole. Write `score_fit=False`, or use "
            "split 'kels', whose slim network is scored."
        )


def builds_later(pl_module: LightningModule) -> bool:
    """True if the module may build its network, or a part of it, behind the `setup` of callbacks.

    Args:
        pl_module: The module.
    """
    own = (getattr(type(pl_module), hook).__qualname__ for hook in ("setup", "configure_model"))
    return not all(name.startswith(("DataHooks.", "ModelHooks.")) for name in own)


def choose_seed(seed: int | None, trainer: Trainer) -> int:
    """Choose the seed of a run, the same on all ranks.

    Args:
        seed: The seed that the user asked for; None takes the global one if there is one, else draws one.
        trainer: The Trainer.
    """
    if seed is not None:
        return seed
    if os.environ.get("PL_GLOBAL_SEED"):
        return int(os.environ["PL_GLOBAL_SEED"])
    # From the operating system: a draw from torch's global generator would change the user's training.
    return int(trainer.strategy.broadcast(secrets.randbits(32)))


def restart_neighbours(trainer: Trainer) -> None:
    """Let callbacks start over that would judge or average a generation together with the one before.

    A redraw makes the network worse before it makes it better, which is no reason for EarlyStopping to stop; and the
    mean of weights from before and after it is no network at all, so that WeightAveraging (EMA) begins anew.

    Args:
        trainer: The Trainer.
    """
    for callback in trainer.callbacks:
        names = class_names(callback)
        if "WeightAveraging" in names:
            averaging: Any = callback
            averaging._average_model.n_averaged.zero_()  # the next weights are copied, not averaged
        if "EarlyStopping" in names:
            stopper: Any = callback
            stopper.wait_count = 0
            worst = float("inf") if stopper.mode == "min" else float("-inf")
            stopper.best_score = stopper.best_score.new_tensor(worst)


def accumulation(trainer: Trainer) -> int:
    """How many batches a step of the present epoch accumulates, also before a GradientAccumulationScheduler says so.

    Args:
        trainer: The Trainer.
    """
    for callback in trainer.callbacks:
        if "GradientAccumulationScheduler" in class_names(callback):
            scheduler: Any = callback
            return int(scheduler.get_accumulate_grad_batches(trainer.current_epoch))
    return int(trainer.accumulate_grad_batches)


def logged_too_late(trainer: Trainer) -> set[str]:
    """Names of metrics whose values are those of the epoch before, until our `on_train_epoch_end` has run.

    Args:
        trainer: The Trainer; our callback is its first, and the module comes last.
    """
    results = trainer.fit_loop.epoch_loop._results.values()
    return {result.meta.name for result in results if result.meta.fx == "on_train_epoch_end"}


def metrics_of_loaders(trainer: Trainer) -> dict[str, Tensor]:
    """What a validation has logged, by the names under which others monitor it.

    Args:
        trainer: The Trainer at the end of a validation.
    """
    results = trainer._results
    before = results.dataloader_idx
    found: dict[str, Tensor] = {}
    try:
        # Lightning hands out the metrics of one loader at a time; those that belong to none stand under None.
        for loader in dict.fromkeys(result.meta.dataloader_idx for result in results.values()):
            results.dataloader_idx = loader
            found |= results.metrics(on_step=False)["callback"]
    finally:
        results.dataloader_idx = before
    return found


def early_stopping_fired(trainer: Trainer, since: int) -> bool:
    """True if an EarlyStopping ended the run.

    Args:
        trainer: The Trainer.
        since: The epoch in which the generation in progress began: one that fired before has not ended the run.
    """
    stoppers: list[Any] = [callback for callback in trainer.callbacks if "EarlyStopping" in class_names(callback)]
    # `stopped_epoch` alone cannot tell "stopped in epoch 0" from "did not stop".
    return trainer.should_stop and any(
        s.stopped_epoch >= since and (s.stopped_epoch > 0 or s.wait_count >= s.patience) for s in stoppers
    )


def time_is_up(trainer: Trainer) -> bool:
    """True if the Trainer's `max_time`, or a Timer of one's own, has ended the run.

    Args:
        trainer: The Trainer at the end of the training; all ranks are together.
    """
    timers: list[Any] = [callback for callback in trainer.callbacks if "Timer" in class_names(callback)]
    left = [timer.time_remaining() for timer in timers]
    up = trainer.should_stop and any(seconds is not None and seconds <= 0 for seconds in left)
    # As in Timer itself, the first rank's clock decides.
    return bool(trainer.strategy.broadcast(up)) if timers else False
