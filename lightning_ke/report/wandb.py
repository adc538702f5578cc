"""Weights & Biases: what a WandbLogger is given beside the metrics. Other loggers are left alone.

Each generation is one point of charts that have the generation as their x axis, and one row of a table that grows. The
library is imported only where a WandbLogger is, which has imported it already.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning_ke.extras import import_extra

GENERATION = "ke/generation"
TABLE = "ke/generations"


def wandb_loggers(loggers: Iterable[Any]) -> Iterator[Any]:
    """Those loggers that write to Weights & Biases, of either namespace of Lightning.

    Args:
        loggers: The loggers of a Trainer.

    Example:
        >>> list(wandb_loggers([object()]))
        []
    """
    for logger in loggers:
        if any(kind.__name__ == "WandbLogger" for kind in type(logger).__mro__):
            yield logger


def describe_run(loggers: Iterable[Any], settings: Mapping[str, Any]) -> None:
    """Write what a run was asked for into its configuration, below ``ke``.

    Args:
        loggers: The loggers of a Trainer.
        settings: Plain values by name.
    """
    for logger in wandb_loggers(loggers):
        logger.experiment.config.update({"ke": dict(settings)}, allow_val_change=True)


class GenerationTables:
    """One growing table of generations for each run of Weights & Biases."""

    def __init__(self) -> None:
        self._tables: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._defined: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[GenerationTables], tuple[()]]:
        """A copy, or what another process gets, has no runs yet: they cannot be copied."""
        return GenerationTables, ()

    def log(self, loggers: Iterable[Any], history: Sequence[Mapping[str, Any]], scores: Iterable[str]) -> None:
        """Add the last generation; call it before its scores are logged, for which it sets the x axis.

        Args:
            loggers: The loggers of a Trainer.
            history: The records of all generations so far, the last one is new.
            scores: Names under which the last generation's scores are about to be logged.
        """
        for logger in wandb_loggers(loggers):
            run = logger.experiment
            x = _prefixed(logger, GENERATION)
            known = self._defined.setdefault(run, set())
            if not known:
                run.define_metric(x)
            for name in {*scores, TABLE} - known:
                # Exact names: next to the logger's own "*" a second pattern is ignored.
                run.define_metric(_prefixed(logger, name), step_metric=x)
                known.add(name)
            table = self._tables.get(run)
            # A run that goes on elsewhere begins with what came before; one that is continued there has it already.
            new = history[-1:] if table is not None or run.resumed else history
            if table is None:
                columns = list(generation_row(history[-1]))
                table = import_extra("wandb", "wandb").Table(columns=columns, log_mode="INCREMENTAL")
                self._tables[run] = table
            for record in new:
                row = generation_row(record)
                table.add_data(*(row.get(column) for column in table.columns))
            run.log({_prefixed(logger, TABLE): table, x: float(history[-1]["generation"])})


def generation_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the history as a row: scores and learning rates in columns of their own, magnitudes left out.

    Args:
        record: The record.

    Example:
        >>> generation_row({"generation": 1, "fit": {"val_acc": 0.5}, "magnitude": {"fc.weight": {"fit": 1.0}}})
        {'generation': 1, 'fit/val_acc': 0.5}
    """
    row: dict[str, Any] = {}
    for key, value in record.items():
        if key in ("dense", "fit", "lr"):
            row |= {f"{key}/{name}": part for name, part in (value or {}).items()}
        elif not isinstance(value, Mapping):
            row[key] = value
    return row


def log_files(loggers: Iterable[Any], name: str, kind: str, files: Iterable[Path], **metadata: Any) -> None:
    """Save files as an artifact of each run.

    Args:
        loggers: The loggers of a Trainer.
        name: What the artifact is, such as ``"slim-network"``; the run's id is put behind it.
        kind: Its type, such as ``"model"``.
        files: The files; those that do not exist are left out, and without any there is no artifact.
        **metadata: Plain values that are saved with it.
    """
    there = [path for path in files if path.is_file()]
    for logger in wandb_loggers(loggers) if there else ():
        run = logger.experiment
        artifact = import_extra("wandb", "wandb").Artifact(f"{name}-{run.id}", type=kind, metadata=metadata)
        for path in there:
            artifact.add_file(str(path))
        run.log_artifact(artifact)


def log_outcome(loggers: Sequence[Any], folder: Path) -> None:
    """Save what a run of `ke-train` has left: networks in the summary, plots and slim network as artifacts.

    Args:
        loggers: The loggers of the run.
        folder: The run's folder.
    """
    found = list(wandb_loggers(loggers))
    if not found:
        return
    networks = json.loads((folder / "results.json").read_text(encoding="utf-8"))["networks"]
    for logger in found:
        summary = {f"networks/{name}/{key}": value for name, row in networks.items() for key, value in row.items()}
        logger.experiment.summary.update(summary)
        logger.experiment.log({"ke/history": import_extra("wandb", "wandb").Image(str(folder / "history.png"))})
    log_files(found, "report", "report", [folder / name for name in ("history.png", "tables.md", "results.json")])
    log_files(found, "slim-network", "model", [folder / "slim.safetensors"], **networks.get("slim", {}))


def fail_runs(loggers: Iterable[Any]) -> None:
    """End the runs of a training that has failed as failed ones.

    Args:
        loggers: The loggers of the training.
    """
    for logger in wandb_loggers(loggers):
        logger.experiment.finish(exit_code=1)


def _prefixed(logger: Any, name: str) -> str:
    """The name under which a logger with a prefix writes a metric."""
    prefix = getattr(logger, "_prefix", "")
    return f"{prefix}{logger.LOGGER_JOIN_CHAR}{name}" if prefix else name
