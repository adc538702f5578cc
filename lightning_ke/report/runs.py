"""Run folders: what `ke-train` left in them, read without torch; whatever is missing or broken is named."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CONFIG, _STATUS, _RESULTS = "config.yaml", "status.json", "results.json"


@dataclass
class Run:
    """One run of `ke-train`, as far as its folder tells.

    Args:
        folder: Where it lies.
        name: The folder's name within the sweep; ``"."`` for a run that is reported alone.
        state: ``"finished"``, ``"running"``, ``"failed"`` or ``"interrupted"``; ``"unreadable"`` if its files cannot be
            read, ``"unknown"`` if nothing says how it ended.
        error: What ended it, or why it cannot be read.
        config: The resolved configuration.
        history: One record per closed generation.
        networks: Scores, operations and parameters of the networks that were tested at the end, by name.
        mask: ``name`` and ``shape`` of each parameter, and the share of it that is ``fit``.
        environment: Versions and machine.
        curves: Value by epoch, by column: ``train_loss``, ``val_loss``, ``ke/fit/val_loss``, ``lr-SGD``.
        seconds: How long it took, in seconds.
        training_operations: What the whole training cost.
        monitor: The validation metric that chose the weights.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
        notes: What the folder lacks.
    """

    folder: Path
    name: str
    state: str = "unknown"
    error: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    networks: dict[str, dict[str, float]] = field(default_factory=dict)
    mask: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[float, float]] = field(default_factory=dict)
    seconds: float | None = None
    training_operations: float | None = None
    monitor: str = "val_acc"
    mode: str = "max"
    notes: list[str] = field(default_factory=list)

    @property
    def seed(self) -> Any:
        """The seed of the run; None if its configuration has none."""
        return self.config.get("seed")

    @property
    def rate(self) -> float | None:
        """The split rate; None for a split that has none."""
        split = self.config.get("split")
        rate = split.get("rate") if isinstance(split, dict) else None
        return float(rate) if isinstance(rate, int | float) else None


def find_runs(root: Path) -> list[Path]:
    """Find the run folders in a folder, at any depth: those that hold a configuration or a status.

    Args:
        root: A run folder, or the folder of a sweep.
    """
    found = []
    for place, folders, files in os.walk(root):
        if _CONFIG in files or _STATUS in files:
            found.append(Path(place))
            folders.clear()  # what lies in a run folder belongs to that run
        # Weights & Biases keeps a config.yaml of another form below `wandb`.
        folders[:] = [name for name in folders if name != "wandb" and not name.startswith(".")]
    return sorted(found, key=lambda path: natural(str(path.relative_to(root))))


def read_runs(root: Path) -> list[Run]:
    """Read all runs in a folder.

    Args:
        root: A run folder, or the folder of a sweep.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no run.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"Expected a folder that holds runs of ke-train, but there is no folder {str(root)!r}.")
    folders = find_runs(root)
    if not folders:
        raise FileNotFoundError(
            f"Expected runs of ke-train in {str(root)!r}, but neither it nor a folder in it holds a {_CONFIG}."
        )
    return [read_run(folder, str(folder.relative_to(root))) for folder in folders]


def read_run(folder: Path, name: str) -> Run:
    """Read one run folder; what cannot be read is said in the run's ``error``, what is missing in its ``notes``.

    Args:
        folder: The run folder.
        name: What the run is called in the report.
    """
    run = Run(folder, name)
    problems: list[str] = []

    def attempt(path: Path, reader: Callable[[Path], Any]) -> dict[Any, Any]:
        if not path.is_file():
            return {}
        try:
            content = reader(path)
        except Exception as error:  # readers fail in many ways; each is said of this run, and the others are reported
            problems.append(f"{path.name} cannot be read: {' '.join(str(error).split())[:200]}")
            return {}
        if isinstance(content, dict):
            return content
        problems.append(f"{path.name} cannot be read: it holds a {type(content).__name__}")
        return {}

    run.config = attempt(folder / _CONFIG, _read_yaml)
    status = attempt(folder / _STATUS, _read_json)
    results = attempt(folder / _RESULTS, _read_results)
    records: dict[int, dict[str, Any]] = {}
    for path in _logs(folder, "ke_history"):
        records |= attempt(path, _read_history)
    # A run that goes on beyond its results has closed more generations since.
    run.history = max(results.get("history", []), [records[number] for number in sorted(records)], key=len)
    for path in _logs(folder, "metrics"):
        for column, points in attempt(path, _read_curves).items():
            run.curves[column] = run.curves.get(column, {}) | points
    run.networks = results.get("networks", {})
    run.mask = results.get("mask") or []
    run.environment = results.get("environment", {})
    run.seconds = results.get("seconds", status.get("seconds"))
    run.training_operations = results.get("training_operations")
    run.monitor = results.get("monitor", run.config.get("monitor", run.monitor))
    run.mode = results.get("mode", run.config.get("mode", run.mode))
    run.state = str(status.get("state") or ("finished" if results else "unknown"))
    if problems and run.state in ("finished", "unknown"):
        run.state = "unreadable"
    run.error = "; ".join(filter(None, (str(status.get("error") or ""), *problems)))
    if run.state == "finished":
        parts = {"mask": run.mask, "environment": run.environment, "generation": run.history, "loss": run.curves}
        missing = [f"no {part}" for part, content in parts.items() if not content]
        run.notes = [f"recorded {', '.join(missing)}"] if missing else []
    return run


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_results(path: Path) -> Any:
    """Results in which every generation and every network is what it should be, as far as a report asks."""
    results = _read_json(path)
    if isinstance(results, dict):
        history, networks = results.get("history", []), results.get("networks", {})
        records = isinstance(history, list) and all(isinstance(record, dict) for record in history)
        if not records or not all({"generation", "epochs"} <= record.keys() for record in history):
            raise ValueError("its history does not say generations and their epochs")
        if not isinstance(networks, dict) or not all(isinstance(row, dict) for row in networks.values()):
            raise ValueError("its networks have no scores by name")
    return results


def _read_yaml(path: Path) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(path), resolve=True)


def _logs(folder: Path, stem: str) -> list[Path]:
    """The logs of a run, oldest first: one that was resumed may have several, one without loggers has its own alone."""
    found = (*folder.glob(f"{stem}*.csv"), *(folder / "log").rglob(f"{stem}*.csv"))
    return sorted(found, key=lambda path: (path.stat().st_mtime, natural(path.name)))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file, restkey=""):
            row.pop("", None)  # a line that is being written may end anywhere
            yield row


def _read_history(path: Path) -> dict[int, dict[str, Any]]:
    """The records of a run that has not written its results, from the file that is written after each epoch."""
    records: dict[int, dict[str, Any]] = {}
    for row in _rows(path):
        record: dict[str, Any] = {"dense": {}, "fit": {}, "lr": {}}
        for column, text in row.items():
            kind, _, metric = column.partition("/")
            value = _number(text)
            if value is not None and not metric:
                record[kind] = int(value) if value.is_integer() else value
            elif value is not None and kind in ("dense", "fit", "lr"):
                record[kind][metric] = value
        if "generation" in record:
            records[record["generation"]] = record
    return records


def _read_curves(path: Path) -> dict[str, dict[float, float]]:
    """Losses and learning rates, one value for each epoch: the mean of what was logged in it."""
    logged: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in _rows(path):
        epoch = _number(row.get("epoch"))
        for column, text in row.items():
            value = _number(text) if _is_curve(column) else None
            if value is not None and epoch is not None:
                logged[column, epoch].append(value)
    curves: dict[str, dict[float, float]] = defaultdict(dict)
    for (column, epoch), values in sorted(logged.items()):
        curves[column][epoch] = sum(values) / len(values)
    return dict(curves)


def _is_curve(column: str) -> bool:
    if column.startswith("ke/generation"):
        return False
    return "loss" in column or column == "lr" or column.startswith("lr-")


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def natural(text: str) -> list[tuple[int, int | str]]:
    """A key that sorts run 10 after run 2.

    Args:
        text: What is sorted by.

    Example:
        >>> sorted(["run10", "run2"], key=natural)
        ['run2', 'run10']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text)]
