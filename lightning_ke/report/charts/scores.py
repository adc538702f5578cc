"""Scores: per generation, against the split rate, against what a network costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lightning_ke.report.charts.base import (
    Chart,
    Spec,
    axis,
    colour,
    faded,
    pick,
    score_axis,
    shapes_of,
    spread_columns,
    tooltip,
)
from lightning_ke.report.lines import Line, Spread, score
from lightning_ke.report.summary import pareto_front

DENSE, FIT = "dense network", "fit hypothesis"
_SIDES = {"dense": DENSE, "fit": FIT}
_DASHES = [6, 4]
_MOST_TICKS = 12


def generations_chart(lines: Sequence[Line], metric: str) -> Chart | None:
    """Dense network and fit hypothesis per generation, a band over the seeds, baselines dashed.

    Args:
        lines: The lines.
        metric: Name of the score.
    """
    shown = [line for line in lines if not line.baseline]
    rows: list[dict[str, Any]] = []
    for line in shown:
        history = [record for run in line.runs if line.repeated(run) is None for record in run.history]
        for side in ("dense", "fit"):
            for number in sorted({record["generation"] for record in history}):
                records = [record for record in history if record["generation"] == number]
                spread = Spread.of(score(record, side, metric) for record in records)
                if spread is not None:
                    network = _SIDES[side]
                    colour = network if len(shown) == 1 else line.label
                    rows.append({"line": line.label, "colour": colour, "network": network, "generation": number})
                    rows[-1] |= spread_columns(spread)
    if not rows:
        return None
    numbers = sorted({row["generation"] for row in rows})
    # Between two generations there is none, but the library would put ticks there.
    ticks = {"values": numbers} if len(numbers) <= _MOST_TICKS else {"tickMinStep": 1}
    x = axis("generation", "generation", format="d", **ticks)
    x["scale"] = {"zero": False, "nice": False, "padding": 16}
    widths = {"condition": {"test": f"datum.network == '{DENSE}'", "value": 3}, "value": 1.4}
    shapes = shapes_of([DENSE, FIT])
    if len(shown) == 1:
        shapes["legend"] = None  # the colours say the same
    tip = ["line", "network", "generation", "mean", "low", "high", "runs"]
    spec: Spec = {
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.16}, "encoding": _band(x, metric)},
            {"mark": "line", "encoding": _curve(x, metric) | {"strokeWidth": widths}, "params": [pick()]},
            {
                "mark": {"type": "point", "size": 70, "strokeWidth": 2},
                "encoding": _curve(x, metric) | {"shape": shapes, "tooltip": tooltip(tip)},
            },
            *_baselines(lines, metric),
        ],
    }
    counts = sorted({row["runs"] for row in rows})
    caption = (
        "After each generation, on validation: thick lines with circles are the dense network, thin lines with squares "
        "the fit hypothesis. "
        f"Lines are means, bands reach from the lowest to the highest of {_listed(counts)} "
        f"{'run' if counts == [1] else 'runs'}. Click an entry below to bring it out."
    )
    if any(line.baseline for line in lines):
        caption += " Dashed: the dense network of runs of one generation."
    return Chart("generations", f"{metric} per generation", caption, spec)


def rates_chart(lines: Sequence[Line], metric: str) -> Chart | None:
    """The last generation's scores against the split rate; None unless several rates are among the runs.

    Args:
        lines: The lines.
        metric: Name of the score.
    """
    rows: list[dict[str, Any]] = []
    for line in lines:
        family = re.sub(r"(, )?\brate [\d.e-]+", "", line.label).strip(", ")
        for side in ("dense", "fit"):
            spread = line.last(side, metric)
            if line.rate is not None and not line.baseline and spread is not None:
                rows.append({"family": family, "network": _SIDES[side], "rate": line.rate} | spread_columns(spread))
    if len({row["rate"] for row in rows}) < 2:
        return None
    families = list(dict.fromkeys(row["family"] for row in rows))
    for row in rows:
        row["colour"] = row["network"] if len(families) == 1 else f"{row['family']}: {row['network']}"
    tip = tooltip(["family", "network", "rate", "mean", "low", "high", "runs"])
    x = axis("rate", "split rate (share that is fit)", format="~g", tickCount=6)
    x["scale"] = {"zero": False, "padding": 16}
    spec: Spec = {
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.16}, "encoding": _band(x, metric)},
            {"mark": "line", "encoding": _curve(x, metric), "params": [pick()]},
            {
                "mark": {"type": "point", "size": 70, "strokeWidth": 2},
                "encoding": _curve(x, metric) | {"tooltip": tip},
            },
            *_baselines(lines, metric),
        ],
    }
    caption = (
        "The score after the last generation, on validation, against the split rate. Bands reach from the lowest to "
        "the highest seed; dashed are runs of one generation."
    )
    return Chart("rates", f"{metric} against split rate", caption, spec)


def costs_chart(lines: Sequence[Line], metric: str, mode: str) -> Chart | None:
    """Score against operations of each tested network, with the Pareto front.

    Args:
        lines: The lines.
        metric: Name of the score.
        mode: Whether more (``"max"``) or less (``"min"``) of it is better.
    """
    rows: list[dict[str, Any]] = []
    for line in lines:
        # Nothing has been redrawn in a baseline: its fit hypothesis is no network that anybody would use.
        for network in ("dense",) if line.baseline else ("dense", "slim"):
            spread, operations = line.tested(network, metric), line.tested(network, "operations")
            if spread is not None and operations is not None:
                what = {"line": line.label, "colour": line.label, "network": f"{network} network"}
                rows.append(what | {"operations": operations.mean, "rate": line.rate} | spread_columns(spread))
    if not rows:
        return None
    front = pareto_front([(row["operations"], row["mean"]) for row in rows], mode)
    least, most = (f(row["operations"] for row in rows) for f in (min, max))
    x = axis("operations", "operations of one image", format="~s", tickCount=6)
    x["scale"] = {"type": "log", "padding": 20} if least > 0 and most > 30 * least else {"zero": True, "nice": True}
    y = score_axis("mean", metric)
    shapes = shapes_of(["dense network", "slim network"])
    rule = {"x": x, "y": score_axis("low", metric), "y2": {"field": "high"}, "color": colour()}
    tip = tooltip(["line", "network", "operations", "mean", "low", "high", "runs"])
    spec: Spec = {
        "data": {"values": rows},
        "layer": [
            {
                "data": {"values": [rows[index] for index in front]},
                "mark": {"type": "line", "interpolate": "step-after", "strokeDash": [2, 3], "color": "#888888"},
                "encoding": {"x": x, "y": y},
            },
            {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": rule},
            {
                "mark": {"type": "point", "size": 90, "strokeWidth": 2},
                "encoding": {"x": x, "y": y, "color": colour(), "shape": shapes, "tooltip": tip, "opacity": faded()},
                "params": [pick()],
            },
        ],
    }
    caption = (
        f"Every tested network: {metric} of the weights that validation chose, against the operations of one forward "
        "pass. No network beats those on the dotted line (the Pareto front) in both. Vertical lines: lowest to highest "
        "seed."
    )
    return Chart("costs", f"{metric} against operations", caption, spec)


def _baselines(lines: Sequence[Line], metric: str) -> list[Spec]:
    rows: list[dict[str, Any]] = []
    for line in lines:
        spread = line.last("dense", metric) if line.baseline else None
        if spread is not None:
            rows.append({"line": line.label, "colour": line.label, "network": DENSE} | spread_columns(spread))
    if not rows:
        return []
    tip = tooltip(["line", "mean", "low", "high", "runs"])
    rule = {"y": score_axis("mean", metric), "color": colour(), "tooltip": tip, "opacity": faded()}
    band = {"y": score_axis("low", metric), "y2": {"field": "high"}, "color": colour()}
    return [
        {"data": {"values": rows}, "mark": {"type": "rect", "opacity": 0.1}, "encoding": band},
        {"data": {"values": rows}, "mark": {"type": "rule", "strokeDash": _DASHES, "strokeWidth": 2}, "encoding": rule},
    ]


def _curve(x: Spec, metric: str) -> Spec:
    return {
        "x": x,
        "y": score_axis("mean", metric),
        "color": colour(),
        "detail": {"field": "network"},
        "opacity": faded(),
    }


def _band(x: Spec, metric: str) -> Spec:
    encoding: Spec = {"x": x, "y": score_axis("low", metric), "y2": {"field": "high"}, "color": colour()}
    return encoding | {"detail": {"field": "network"}}


def _listed(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
