"""One run of `ke-train`: build everything and train in generations."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from tqdm.contrib.logging import logging_redirect_tqdm

from lightning_ke.app.build import build, build_optimizer, plain, taken_by, target_of
from lightning_ke.app.outcome import report
from lightning_ke.app.preflight import claim_folder
from lightning_ke.app.quiet import without_advice
from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.splits import Split

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig, folder: Path) -> float | None:
    """Train as the configuration says.

    Args:
        config: The composed configuration (`conf/train.yaml`).
        folder: Where everything is written.

    Returns:
        The best value of ``config.monitor`` on validation; None if nothing was validated.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # Lightning 2.6 still asks in a way that torch 2.14 warns of.
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
    seed_everything(config.seed, workers=True, verbose=False)
    data: LightningDataModule = build(config.datamodule)
    data.prepare_data()
    task = build_task(config, data)
    split: Split = build(config.split)
    evolution = build_evolution(config, split)
    best = checkpoints(config, split, task, folder / "checkpoints")
    claim_folder(folder, config)  # not before: what is refused above leaves no trace of a run
    loggers: list[Logger] = []
    try:
        loggers.extend(build(node) for node in config.logger.values())
        # One line, however many scores there are.
        bars = [TQDMProgressBar(refresh_rate=5)] if config.trainer.enable_progress_bar else []
        others: list[Callback] = [build(node) for node in config.callbacks.values()]
        trainer = build_trainer(config, [evolution, *others, *best.values(), *bars], loggers, folder)
        for logger in loggers:
            logger.log_hyperparams(plain(config))
        with logging_redirect_tqdm():  # else messages are written into the progress bar
            trainer.fit(task, data)
        if trainer.is_global_zero and evolution.history:
            report(config, folder, data, task, evolution, best)
    finally:
        close(loggers)
    score = best["dense"].best_model_score
    return None if score is None else float(score)


def build_task(config: DictConfig, data: LightningDataModule) -> LightningModule:
    """Build the network and the module that trains it.

    Args:
        config: The composed configuration.
        data: Says how many classes and channels there are, if it knows.
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
        "config": lambda: backbone,
    }
    known = taken_by(config.task, known)
    make = build(config.task, _partial_=True)
    task: LightningModule = make(**{name: value() if callable(value) else value for name, value in known.items()})
    if task.example_input_array is None and {"in_channels", "image_size"} <= set(sizes):
        task.example_input_array = torch.zeros(2, sizes["in_channels"], sizes["image_size"], sizes["image_size"])
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
    return KnowledgeEvolution(
        split,
        generations=options.pop("count"),
        epochs_per_generation=options.pop("epochs"),
        seed=config.seed,
        **options,
    )


def build_trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger], folder: Path) -> Trainer:
    """Build the Trainer; without `trainer.max_epochs` it is as long as all generations together.

    Args:
        config: The composed configuration.
        callbacks: Its callbacks.
        loggers: Its loggers.
        folder: Where it writes.
    """
    length, count, epochs = config.trainer.max_epochs, config.generations.count, plain(config.generations.epochs)
    if length is None and isinstance(epochs, list) and all(isinstance(number, int) for number in epochs):
        length = sum(epochs)
    elif length is None and count is not None and isinstance(epochs, int):
        length = count * epochs
    elif length is None and count is not None and epochs is None:
        length = -1  # what ends a generation decides
    with without_advice():
        trainer: Trainer = build(
            config.trainer,
            max_epochs=length,
            callbacks=callbacks,
            logger=loggers or False,
            default_root_dir=str(folder),
        )
    return trainer


def checkpoints(config: DictConfig, split: Split, task: LightningModule, folder: Path) -> dict[str, ModelCheckpoint]:
    """The checkpoints that choose the weights on validation: the best dense network's and the best slim network's.

    Args:
        config: The composed configuration.
        split: Says whether there is a slim network.
        task: Says by `monitors` what it logs on validation, if it is one of ours.
        folder: Where they are written.

    Raises:
        ValueError: If the task logs no such metric.
    """
    for name, known in (("monitor", getattr(task, "monitors", ())), ("mode", ("max", "min"))):
        if known and config[name] not in known:
            raise ValueError(f"Expected `{name}` to be one of {', '.join(known)}, but got {config[name]!r}.")
    monitors = {"dense": config.monitor}
    if split.structured and config.generations.score_fit == "epoch":
        monitors["fit"] = f"ke/fit/{config.monitor}"
    return {
        name: ModelCheckpoint(
            folder,
            filename=f"best-{name}",
            monitor=monitor,
            mode=config.mode,
            save_last=name == "dense",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        for name, monitor in monitors.items()
    }


def close(loggers: Iterable[Any]) -> None:
    """Close loggers, so that the next job in this process starts runs of its own.

    Args:
        loggers: The loggers; those whose experiment has a `finish` (Weights & Biases) leave it to us.
    """
    for logger in loggers:
        finish = getattr(logger.experiment, "finish", None)
        if finish is not None:
            finish()
