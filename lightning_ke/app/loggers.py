"""The loggers of a run: built in one place, closed whatever happens, and continued without lost or doubled rows."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger

from lightning_ke.app.build import build, members, plain
from lightning_ke.app.run_folder import is_first_process
from lightning_ke.report.wandb import fail_runs

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ROWS, _CONFIGURATION = "metrics.csv", "hparams.yaml"


@contextmanager
def run_loggers(config: DictConfig) -> Iterator[list[Logger]]:
    """Build the loggers of a run and close them at its end, also if it fails.

    Args:
        config: The composed configuration.
    """
    loggers: list[Logger] = []
    try:
        for node in members(config, "logger").values():
            logger: Logger = build(node)
            if is_first_process():  # the one that writes; of several that begin together one would come too late
                set_rows_aside(logger)
            logger.log_hyperparams(plain(config))
            loggers.append(logger)  # not before: one that cannot begin cannot be closed either
        yield loggers
    except BaseException:
        fail_runs(loggers)
        for logger in loggers if is_first_process() else ():
            put_rows_back(logger)
        raise
    finally:
        close(loggers)


def close(loggers: Iterable[Any]) -> None:
    """Close loggers, so that the next job in this process starts runs of its own.

    Args:
        loggers: The loggers; those whose experiment has a `finish` (Weights & Biases) leave it to us.
    """
    for logger in loggers:
        finish = getattr(logger.experiment, "finish", None)
        if finish is not None:
            finish()


# Lightning's CSVLogger deletes the rows that an earlier process has written, and a killed process may have written more
# rows than its last checkpoint knows of. So a run that goes on puts the old rows aside, and takes back those that the
# checkpoint knows. The configuration, which the logger writes down before anybody has said that the run may go on with
# it, is put aside, too.


def set_rows_aside(logger: Logger) -> None:
    """Save the rows of an earlier part of this run from being deleted, and its configuration from being overwritten.

    Args:
        logger: A logger that has not begun yet; nothing happens for others than CSVLogger.
    """
    if isinstance(logger, CSVLogger):
        for written in (_path(logger, _ROWS), _path(logger, _CONFIGURATION)):
            # Rows that are aside already are the whole story: a later part died before it took them back.
            if written.exists() and not aside_of(written).exists():
                written.replace(aside_of(written))


def put_rows_back(logger: Logger) -> None:
    """Undo `set_rows_aside` for a run that could not go on.

    Args:
        logger: The logger; nothing happens for others than CSVLogger.
    """
    if isinstance(logger, CSVLogger) and not _path(logger, _ROWS).exists():
        for written in (_path(logger, _ROWS), _path(logger, _CONFIGURATION)):
            if aside_of(written).exists():
                aside_of(written).replace(written)


def take_rows_back(logger: Logger, count: int, pending: Mapping[str, float]) -> None:
    """Go on with the rows of an earlier part of this run.

    Args:
        logger: The logger; nothing happens for others than CSVLogger.
        count: How many rows the checkpoint knows of.
        pending: What was logged right after the checkpoint: it knows that row before the file does.
    """
    if not isinstance(logger, CSVLogger):
        return
    aside = aside_of(_path(logger, _ROWS))
    rows = _read(aside)[:count] if aside.exists() else []
    for row in rows:
        step = int(row.pop("step"))
        logger.log_metrics(row, step)
    if pending:
        row = dict(pending)
        logger.log_metrics(row, int(row.pop("step")))
    logger.save()
    aside.unlink(missing_ok=True)
    aside_of(_path(logger, _CONFIGURATION)).unlink(missing_ok=True)


def count_rows(loggers: Sequence[Logger]) -> list[int]:
    """Write out all rows and count them, for each logger; 0 for others than CSVLogger.

    Args:
        loggers: The loggers of a run.
    """
    counts = []
    for logger in loggers:
        logger.save()
        written = _path(logger, _ROWS) if isinstance(logger, CSVLogger) else None
        counts.append(len(_read(written)) if written is not None and written.exists() else 0)
    return counts


def _path(logger: CSVLogger, name: str) -> Path:
    return Path(logger.log_dir) / name


def aside_of(path: Path) -> Path:
    """Where a file of an earlier part of a run waits until it is known whether the run goes on.

    Args:
        path: The file.

    Example:
        >>> aside_of(Path("metrics.csv")).name
        'metrics-before.csv'
    """
    return path.with_stem(f"{path.stem}-before")


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: _number(text) for key, text in row.items() if text} for row in csv.DictReader(file)]


def _number(text: str) -> float | str:
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return float(text)
    return text
