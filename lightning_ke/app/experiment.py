"""One run of `ke-train`: build everything and train in generations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden
from tqdm.contrib.logging import logging_redirect_tqdm

from lightning_ke.app.answers import sentence_for
from lightning_ke.app.build import (
    build,
    build_optimizer,
    check_filled,
    importable_from,
    members,
    plain,
    taken_by,
    target_of,
)
from lightning_ke.app.checkpoints import AtomicCheckpointIO, LastCheckpoint, RunCheckpoint
from lightning_ke.app.isolation import isolated
from lightning_ke.app.loggers import run_loggers
from lightning_ke.app.meter import Meter
from lightning_ke.app.outcome import Outcome
from lightning_ke.app.quiet import without_advice
from lightning_ke.app.run_folder import RunFolder
from lightning_ke.app.typed import check_types
from lightning_ke.app.view import RunView
from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.report.wandb import log_outcome
from lightning_ke.splits import Split

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig, folder: Path, *, resume: bool = False) -> float | None:
    """Train as the configuration says.

    Args:
        config: The composed configuration (`conf/train.yaml`).
        folder: Where everything is written.
        resume: Whether the run that the folder holds goes on from its last checkpoint.

    Returns:
        The best value of ``config.monitor`` on validation; None if nothing was validated.
    """
    with isolated(), importable_from(Path.cwd()):
        check_types(config)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        # Lightning 2.6 still asks in a way that torch 2.14 warns of.
        warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
        # What a folder that is continued holds is meant to be there.
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty.*")
        # One device needs no `srun`; who asks for several in a cluster has read how.
        warnings.filterwarnings("ignore", message="The `srun` command is available.*")
        seed_everything(config.seed, workers=True, verbose=False)
        check_filled("datamodule", config.datamodule, ())
        data: LightningDataModule = build(config.datamodule)
        data.prepare_data()
        task = build_task(config, data)
        check_tested(task, data)
        split: Split = build(config.split)
        evolution = build_evolution(config, split)
        record = RunFolder(folder)
        best = checkpoints(config, split, task, record.path / "checkpoints")
        # Not before: what is refused above leaves no trace of a run.
        with record.claimed(config, sentence_for, resume=resume):
            return _train(config, record, data, task, evolution, best)


def _train(
    config: DictConfig,
    record: RunFolder,
    data: LightningDataModule,
    task: LightningModule,
    evolution: KnowledgeEvolution,
    best: dict[str, ModelCheckpoint],
) -> float | None:
    meter = Meter(record)
    last = LastCheckpoint(record.path / "checkpoints", evolution)
    view = RunView(evolution, config.monitor, bar=config.trainer.enable_progress_bar)
    with run_loggers(config) as loggers:
        others: list[Callback] = [build(node) for node in members(config, "callbacks").values()]
        callbacks = [evolution, meter, view, *others, *best.values(), last]
        trainer = build_trainer(config, callbacks, loggers, record.path)
        with logging_redirect_tqdm():  # else messages are written into the progress bar
            trainer.fit(task, data, ckpt_path=record.checkpoint if record.checkpoint.exists() else None)
        leave_group()
        if trainer.is_global_zero and evolution.history:
            device = trainer.strategy.root_device
            Outcome(config, record, data, task, evolution, best, meter.operations, device).report()
            log_outcome(loggers, record.path)
    found = best["dense"].best_model_score
    score = None if found is None else float(found)
    if trainer.is_global_zero:
        record.record(score=score)
    return score


def leave_group() -> None:
    """End the work in common of several processes: what follows is the first one's alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def build_task(config: DictConfig, data: LightningDataModule) -> LightningModule:
    """Build the network and the module that trains it.

    Args:
        config: The composed configuration.
        data: Says how many classes and channels there are, if it knows.

    Raises:
        ValueError: If the module needs an argument that nobody gives it.
    """
    sizes = {name: getattr(data, name) for name in ("num_classes", "in_channels", "image_size") if hasattr(data, name)}
    backbone = plain(config.backbone)
    backbone |= taken_by(backbone, {**sizes, **outputs_of(config.task, sizes)})
    known = {
        **sizes,
        "backbone": lambda: build(backbone),
        "optimizer": lambda: build_optimizer(config.optimizer),
        "scheduler": lambda: build(config.scheduler.factory),
        "interval": lambda: config.scheduler.interval,
        "loss": lambda: build(config.loss),
        # Whoever builds the network again has its trained weights, and perhaps not this file.
        "config": lambda: {name: value for name, value in backbone.items() if name != "weights"},
    }
    known = taken_by(config.task, known)
    check_filled("task", config.task, known)
    make = build(config.task, _partial_=True)
    task: LightningModule = make(**{name: value() if callable(value) else value for name, value in known.items()})
    if config.channels_last:
        task.to(memory_format=torch.channels_last)  # convolutions hand it on to what they compute
    if task.example_input_array is None and {"in_channels", "image_size"} <= set(sizes):
        task.example_input_array = torch.zeros(2, sizes["in_channels"], sizes["image_size"], sizes["image_size"])
    elif task.example_input_array is None:
        task.example_input_array = getattr(data, "example_input", None)
    return task


def outputs_of(task: DictConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    """How many outputs the network of a task has, as the argument `num_classes` of a backbone.

    Args:
        task: The task's node; a task of ours says it by its method `outputs`.
        sizes: What the data module knows.
    """
    outputs = getattr(target_of(task), "outputs", None)
    if outputs is None or "num_classes" not in sizes:
        return {}
    options = {name: value for name, value in plain(task).items() if not name.startswith("_")}
    return {"num_classes": outputs(sizes["num_classes"], **options)}


def build_evolution(config: DictConfig, split: Split) -> KnowledgeEvolution:
    """Build the callback.

    Args:
        config: The composed configuration.
        split: What is fit.
    """
    options = {**plain(config.generations), **plain(config.redraw)}
    for name in ("end", "reset"):
        if isinstance(options[name], dict):
            options[name] = build(options[name])
    if isinstance(options["phases"], list):
        options["phases"] = build(options["phases"])
    return KnowledgeEvolution(
        split,
        generations=options.pop("count"),
        epochs_per_generation=fixed_epochs(options.pop("epochs"), plain(config.generations.end)),
        seed=config.seed,
        **options,
    )


def fixed_epochs(epochs: Any, end: Any) -> Any:
    """How long each generation lasts; None where it is over when its end says so, `epochs` being the most of it.

    Args:
        epochs: `generations.epochs`.
        end: `generations.end`.

    Example:
        >>> fixed_epochs(6, "length"), fixed_epochs(6, {"_target_": "lightning_ke.endings.Plateau", "most": 6})
        (6, None)
    """
    return None if isinstance(end, Mapping) and "most" in end else epochs


def build_trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger], folder: Path) -> Trainer:
    """Build the Trainer; without `trainer.max_epochs` it is as long as all generations together.

    Args:
        config: The composed configuration.
        callbacks: Its callbacks.
        loggers: Its loggers.
        folder: Where it writes.

    Raises:
        ValueError: If the run has no end, or `check_trainer` refuses an argument.
    """
    length, count = config.trainer.max_epochs, config.generations.count
    epochs = fixed_epochs(plain(config.generations.epochs), plain(config.generations.end))
    if length is None and isinstance(epochs, list) and all(isinstance(number, int) for number in epochs):
        length = sum(epochs)
    elif length is None and count is not None and isinstance(epochs, int):
        length = count * epochs
    elif length is None and count is not None and epochs is None:
        length = -1  # what ends a generation decides
    elif length is None and config.generations.stop_at:
        length = -1  # a goal decides
    check_trainer(config.trainer, length)
    with without_advice():
        trainer: Trainer = build(
            config.trainer,
            max_epochs=length,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=str(folder),
            enable_progress_bar=False,  # `RunView` shows the whole run, not an epoch
            plugins=[AtomicCheckpointIO()],
        )
    return trainer


def check_tested(task: LightningModule, data: LightningDataModule) -> None:
    """Refuse what would train to its end and could then not be tested.

    Args:
        task: The module.
        data: Its data, ours or somebody's; ours find their test images, but read none.

    Raises:
        ValueError: If one of the two says nothing of testing.
        DataNotFoundError: If test images are missing.
    """
    for method, owner in (("test_step", task), ("test_dataloader", data)):
        if not is_overridden(method, owner):
            raise ValueError(
                f"Expected {type(owner).__name__} to have a method `{method}`, because the weights that validation "
                "chooses are tested at the end, but it has none. Write one."
            )
    find_test = getattr(data, "find_test", None)
    if find_test is not None:
        find_test()


def check_trainer(trainer: Mapping[str, Any], length: int | None) -> None:
    """Refuse a run that would train, validate or test nothing, and arguments that the run gives its Trainer itself.

    Args:
        trainer: Arguments of the Trainer.
        length: Epochs of the run; -1 if something else ends it, None if nothing is said of it.

    Raises:
        ValueError: If there is no length, no validation in so many epochs, no training, no test, or such an argument.

    Example:
        >>> check_trainer({"check_val_every_n_epoch": 5}, 3)
        Traceback (most recent call last):
        ...
        ValueError: Expected `trainer.check_val_every_n_epoch` to be at most 3, the epochs of the run, but got 5: ...
    """
    others = (trainer.get("max_steps"), trainer.get("max_time"))
    if length is None and all(end in (None, -1) for end in others) and not trainer.get("fast_dev_run"):
        raise ValueError(
            "Expected the run to have a length, but `generations.count`, `generations.epochs` and `trainer.max_epochs` "
            "leave it open, and Lightning would train 1000 epochs. Give generations.count or trainer.max_epochs."
        )
    every = trainer.get("check_val_every_n_epoch") or 1
    if length is not None and 0 < length < every:
        raise ValueError(
            f"Expected `trainer.check_val_every_n_epoch` to be at most {length}, the epochs of the run, but got "
            f"{every}: nothing would be validated. Lower it, or train for longer."
        )
    parts = {
        "train": "nothing would be trained",
        "val": "no weights could be chosen",
        "test": "the chosen weights are tested at the end",
    }
    for part, why in parts.items():
        if trainer.get(f"limit_{part}_batches") == 0:
            raise ValueError(
                f"Expected `trainer.limit_{part}_batches` to be above 0, but got 0: {why}. Raise it, or leave it out."
            )
    instead = {
        "callbacks": "the group callbacks",
        "logger": "the group logger",
        "plugins": "a Trainer of your own",
        "default_root_dir": "hydra.run.dir=DIR",
    }
    if given := sorted(instead.keys() & trainer.keys()):
        raise ValueError(
            f"Expected `trainer.{given[0]}` to be left out, because ke-train gives the Trainer its own, but got "
            f"{trainer[given[0]]!r}. Use {instead[given[0]]}."
        )


def checkpoints(config: DictConfig, split: Split, task: LightningModule, folder: Path) -> dict[str, ModelCheckpoint]:
    """The checkpoints that choose the weights on validation: the best dense network's and the best slim network's.

    Args:
        config: The composed configuration.
        split: Says whether there is a slim network.
        task: Says by `monitors` what it logs on validation, and by `directions` what of it is better, if it is one of
            ours.
        folder: Where they are written.

    Raises:
        ValueError: If the task logs no such metric, or the worst weights would be chosen.
    """
    for name, known in (("monitor", getattr(task, "monitors", ())), ("mode", ("max", "min"))):
        if known and config[name] not in known:
            raise ValueError(f"Expected `{name}` to be one of {', '.join(known)}, but got {config[name]!r}.")
    better = getattr(task, "directions", {}).get(config.monitor, config.mode)
    if config.mode != better:
        raise ValueError(
            f"Expected `mode` to be {better!r} for {config.monitor}, but got {config.mode!r}: the worst weights would "
            f"be chosen. Add mode={better}."
        )
    monitors = {"dense": config.monitor}
    if split.structured and config.generations.score_fit == "epoch":
        monitors["fit"] = f"ke/fit/{config.monitor}"
    return {
        name: RunCheckpoint(folder, f"best-{name}", monitor=monitor, mode=config.mode)
        for name, monitor in monitors.items()
    }
