"""What each generation brought: the records of a run as a CSV file, a data frame and a plot."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ke.extras import import_extra
from lightning_ke.masks import Mask
from lightning_ke.packing import Entry
from lightning_ke.sharding import gather, own_part, region_of
from lightning_ke.units import units

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for every kind of colour vision; markers and dashes say the same again.
_DENSE, _FIT, _BASELINES = "#0072B2", "#D55E00", ("#404040", "#009E73", "#CC79A7", "#806000")
_DASHES = ((6, 3), (2, 2), (8, 2, 2, 2), (1, 3))


def history_frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Lay out the records of a run as a data frame.

    Args:
        records: One record of plain types for each generation (`KnowledgeEvolution.history`).

    Returns:
        One row per generation; what a record nests is joined by slashes: ``dense/NAME``, ``fit/NAME``, ``lr/last``.

    Raises:
        ModuleNotFoundError: If pandas is not installed.

    Example:
        >>> records = [{"generation": 1, "dense": {"accuracy": 0.5}}, {"generation": 2, "dense": {"accuracy": 0.6}}]
        >>> history_frame(records)
           generation  dense/accuracy
        0           1             0.5
        1           2             0.6
    """
    pandas = import_extra("pandas", "app")
    columns, rows = _table(records)
    frame: pd.DataFrame = pandas.DataFrame(rows, columns=columns)
    return frame


def write_history_csv(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write the records of a run as a CSV file, with the columns of `history_frame`.

    A file that is already there is replaced at once: whoever reads it sees the old or the new one, never a part.

    Args:
        records: One record of plain types for each generation.
        path: The file. Its folder is made if it does not exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns, rows = _table(records)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # A private temporary file gets the permissions that an ordinary new file has here.
        umask = os.umask(0)
        os.umask(umask)
        with os.fdopen(descriptor, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def free_path(path: Path) -> Path:
    """Return the path itself, or the next free one of its kind: another run's history is never overwritten.

    Args:
        path: Where a file is to be written, such as ``DIR/ke_history.csv``; the next one is ``DIR/ke_history-2.csv``.
    """
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def plot_history(
    records: Sequence[Mapping[str, Any]],
    metric: str,
    baselines: Mapping[str, float] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Plot a metric of the dense network and of the fit hypothesis over the generations.

    Args:
        records: One record of plain types for each generation.
        metric: Name under which the metric was logged.
        baselines: Values to compare with, such as ``{"long baseline": 0.44}``; a dashed line for each.
        path: Where to save the figure (the ending chooses the format), None for nowhere.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If there is no record, or none with this metric.

    Example:
        >>> records = [{"generation": 1, "dense": {"acc": 0.5}}, {"generation": 2, "dense": {"acc": 0.6}}]
        >>> figure = plot_history(records, "acc", baselines={"long baseline": 0.55})
        >>> print(*(line.get_label() for line in figure.axes[0].lines), sep=", ")
        dense network, long baseline (0.55)
    """
    _check_metric(records, metric)
    figure_module, ticker = (import_extra(f"matplotlib.{name}", "app") for name in ("figure", "ticker"))
    # Not pyplot: no window, no global state, and nothing to close.
    figure: Figure = figure_module.Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    generations = [record["generation"] for record in records]
    # The fit line is thin and its marks are hollow: where both networks are equal, both are seen.
    fit_style: dict[str, Any] = {
        "color": _FIT,
        "marker": "s",
        "markersize": 7,
        "linewidth": 1.2,
        "markerfacecolor": "none",
    }
    dense_style: dict[str, Any] = {"color": _DENSE, "marker": "o", "markersize": 4, "linewidth": 2.8}
    for side, label, style in (("dense", "dense network", dense_style), ("fit", "fit hypothesis", fit_style)):
        values = [record.get(side, {}).get(metric, float("nan")) for record in records]
        if any(metric in record.get(side, {}) for record in records):
            axes.plot(generations, values, label=label, **style)
    for index, (name, value) in enumerate((baselines or {}).items()):
        colour, dashes = _BASELINES[index % 4], _DASHES[index % 4]
        axes.axhline(value, label=f"{name} ({value:.3g})", color=colour, linewidth=1.5).set_dashes(dashes)
    axes.set_xlabel("generation")
    axes.set_ylabel(metric)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(y=0.08)
    axes.grid(axis="y", color="#d9d9d9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    return figure


@torch.no_grad()
def weight_magnitudes(model: nn.Module, mask: Mask) -> dict[str, dict[str, float]]:
    """Measure the mean absolute weight of fit and reset hypothesis in every layer.

    The redrawn weights start small; whether they have grown to the size of the fit ones tells whether a generation was
    long enough.

    Args:
        model: The network, wrapped or not.
        mask: What is fit.

    Returns:
        For each layer's weights, by canonical name: ``"fit"`` and ``"reset"``, without the one that has no entries.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, -3.0)
        >>> member = {"weight": torch.tensor([[True, False]]), "bias": torch.tensor([True])}
        >>> weight_magnitudes(layer, Mask.from_tensors(member))
        {'weight': {'fit': 3.0, 'reset': 3.0}}
    """
    found = {}
    for unit in units(model):
        for local, weight in unit.weights.items():
            name = unit.canonical(local)
            found[name] = _mean_sizes(weight.detach().abs(), mask.entry(name))
    return found


def _mean_sizes(sizes: Tensor, entry: Entry) -> dict[str, float]:
    counts = {"fit": entry.count(), "reset": sizes.numel() - entry.count()}
    region = region_of(sizes)
    member = (entry.tensor() if region is None else entry.part(region)).to(own_part(sizes).device)
    total = {}
    for side, count in counts.items():
        if count:
            one = sizes.clone()
            own_part(one).masked_fill_(~member if side == "fit" else member, 0)
            total[side] = float(gather(one.sum(dtype=torch.float64)))
    return {side: value / counts[side] for side, value in total.items()}


def _table(records: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns in the order of the records' own keys, and a flat row for each record."""
    rows = [dict(_flatten(record)) for record in records]
    keys = list(dict.fromkeys(key for record in records for key in record))
    columns = dict.fromkeys(column for row in rows for column in row)
    # A metric that only a later generation has goes beside its kind.
    return sorted(columns, key=lambda column: keys.index(column.split("/")[0])), rows


def _flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _check_metric(records: Sequence[Mapping[str, Any]], metric: str) -> None:
    if not records:
        raise ValueError("Expected argument `records` to hold at least one generation, but it is empty.")
    known = dict.fromkeys(name for record in records for side in ("dense", "fit") for name in record.get(side, {}))
    if metric not in known:
        raise ValueError(
            f"Expected argument `metric` to be one that the records hold, but got {metric!r}. "
            f"They hold {', '.join(map(repr, known)) or 'none: nothing was logged in validation'}."
        )
