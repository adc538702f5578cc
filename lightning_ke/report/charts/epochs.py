"""Losses and learning rate over the epochs, with the boundaries of the generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_ke.report.charts.base import Chart, Spec, axis, choice_of, colour, csv_data, score_axis, tooltip
from lightning_ke.report.lines import Line
from lightning_ke.report.runs import Run

# A page of 50 long runs stays small: this many points in all, at least 40 and at most 400 for each curve.
_POINTS, _FEWEST, _MOST = 45_000, 40, 400


def loss_chart(lines: Sequence[Line]) -> Chart | None:
    """Losses over the epochs of one run, with the boundaries of the generations.

    Args:
        lines: The runs, by what they have in common.
    """
    runs = [run for line in lines for run in line.runs]
    names = {"train_loss": "training", "val_loss": "dense, validation", "ke/fit/val_loss": "fit, validation"}
    curves = {
        run.name: {names.get(column, column): points for column, points in run.curves.items() if "loss" in column}
        for run in runs
    }
    caption = "Losses over the epochs. A redraw happens at each vertical line: a new generation begins."
    return _over_epochs("loss", "Loss", caption, lines, curves)


def lr_chart(lines: Sequence[Line]) -> Chart | None:
    """The learning rate over the epochs of one run, with the boundaries of the generations.

    Args:
        lines: The runs, by what they have in common.
    """
    runs = [run for line in lines for run in line.runs]
    curves: dict[str, dict[str, dict[float, float]]] = {}
    logged = True
    for run in runs:
        curves[run.name] = {column: points for column, points in run.curves.items() if column.startswith("lr")}
        if not curves[run.name]:
            points: dict[float, float] = {}
            for first, record in zip(boundaries(run), run.history, strict=False):
                if lr := record.get("lr"):
                    logged = False
                    points |= {first: lr["first"], first + record["epochs"] - 1: lr["last"]}
            curves[run.name] = {"lr": points} if points else {}
    caption = "The learning rate over the epochs; a new generation begins at each vertical line."
    if not logged:
        caption += " Runs that logged none show the first and the last value of each generation."
    return _over_epochs("lr", "Learning rate", caption, lines, curves)


def boundaries(run: Run) -> list[float]:
    """The first epoch of each generation of a run.

    Args:
        run: The run.
    """
    starts: list[float] = [0]
    for record in run.history:
        starts.append(starts[-1] + record["epochs"])
    return starts[:-1] if len(starts) > 1 else starts


def thin(points: Mapping[float, float], most: int) -> list[tuple[float, float]]:
    """A curve in fewer points: of each stretch its lowest and its highest, so that no peak is lost.

    Args:
        points: Value by epoch.
        most: How many points are left at most.

    Example:
        >>> thin({0: 5.0, 1: 4.0, 2: 9.0, 3: 3.0, 4: 2.0, 5: 1.0}, most=4)
        [(1, 4.0), (2, 9.0), (3, 3.0), (5, 1.0)]
    """
    ordered = sorted(points.items())
    if len(ordered) <= most:
        return ordered
    buckets = max(most // 2, 1)
    kept: list[tuple[float, float]] = []
    for number in range(buckets):
        stretch = ordered[number * len(ordered) // buckets : (number + 1) * len(ordered) // buckets]
        low, high = (f(stretch, key=lambda point: point[1]) for f in (min, max))
        kept += sorted({low, high})
    return kept


def _over_epochs(
    name: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    curves: Mapping[str, Mapping[str, Mapping[float, float]]],
) -> Chart | None:
    shown = [run for line in lines for run in line.runs if any(curves[run.name].values())]
    shown.sort(key=lambda run: run.state != "finished")
    if not shown:
        return None
    number_of_curves = sum(len(curves[run.name]) for run in shown)
    most = min(max(_POINTS // number_of_curves, _FEWEST), _MOST)
    rows: list[dict[str, Any]] = [
        {"m": number, "epoch": epoch, "curve": curve, "value": value}
        for number, run in enumerate(shown)
        for curve, points in curves[run.name].items()
        for epoch, value in thin(points, most)
    ]
    starts = [{"m": number, "epoch": start} for number, run in enumerate(shown) for start in boundaries(run)]
    x = axis("epoch", "epoch", tickMinStep=1)
    y = score_axis("value", title.lower())
    if name == "loss" and all(row["value"] > 0 for row in rows):
        # The fit hypothesis's first losses are hundreds of times those at the end.
        y |= {"scale": {"type": "log"}, "axis": {"grid": False}}
    choice = choice_of("m", "Run", _labels(lines, shown)) if len(shown) > 1 else {}
    colours = {"color": colour("curve")} if len({row["curve"] for row in rows}) > 1 else {}
    spec: Spec = {
        "layer": [
            {
                **csv_data(starts),
                "transform": choice.get("transform", []),
                "mark": {"type": "rule", "color": "#999999", "strokeWidth": 1},
                "encoding": {"x": x},
            },
            {
                **csv_data(rows),
                "transform": choice.get("transform", []),
                "mark": {"type": "line", "strokeWidth": 1.6},
                "encoding": {"x": x, "y": y, "tooltip": tooltip(["curve", "epoch", "value"])} | colours,
            },
        ],
    }
    if choice:
        spec["params"] = choice["params"]
    return Chart(name, title, caption, spec)


def _labels(lines: Sequence[Line], runs: Sequence[Run]) -> list[str]:
    """What runs are called in a list: line and seed; the folder of those that share both."""
    texts = {run.name: f"{line.label}, seed {run.seed}" for line in lines for run in line.runs}
    taken = list(texts.values())
    return [texts[run.name] if taken.count(texts[run.name]) == 1 else run.name for run in runs]
