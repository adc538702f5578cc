"""What the charts have in common: Vega-Lite specifications are plain dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_ke.report.lines import Spread

Spec = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Args:
        name: Its file name without ending, and its place in the page.
        title: What it shows.
        caption: How to read it.
        spec: What Vega-Lite draws.
    """

    name: str
    title: str
    caption: str
    spec: Spec


def axis(field: str, title: str, **axis: Any) -> Spec:
    """A horizontal axis of numbers.

    Args:
        field: Column of the data.
        title: What stands beside it.
        **axis: Vega-Lite's options of an axis.
    """
    return {"field": field, "type": "quantitative", "title": title, "axis": {"grid": False, **axis}}


def score_axis(field: str, metric: str) -> Spec:
    """A vertical axis of scores, which need not begin at 0.

    Args:
        field: Column of the data.
        metric: Name of the score.
    """
    numbers = {"format": "~g"}  # else the one tick of an axis of a single value is called 0
    return {"field": field, "type": "quantitative", "title": metric, "scale": {"zero": False}, "axis": numbers}


def colour(field: str = "colour") -> Spec:
    """A colour for each value, in the order of appearance.

    Args:
        field: Column of the data.
    """
    return {"field": field, "type": "nominal", "sort": None, "legend": {"title": None, "symbolOpacity": 1}}


def choice_of(field: str, name: str, labels: Sequence[str]) -> Spec:
    """A list above a chart to choose which rows it shows.

    Args:
        field: Column that holds the number of the choice.
        name: What is chosen.
        labels: What stands in the list.
    """
    select = {"input": "select", "options": list(range(len(labels))), "labels": list(labels), "name": f"{name} "}
    return {
        "params": [{"name": "choice", "value": 0, "bind": select}],
        "transform": [{"filter": f"datum.{field} == choice"}],
    }


def tooltip(fields: Sequence[str]) -> list[Spec]:
    """What is told of the mark under the pointer.

    Args:
        fields: Columns of the data.
    """
    exact = ("line", "family", "network", "curve", "layer", "shape")
    return [
        {"field": field} | ({} if field in exact else {"type": "quantitative", "format": ",.4~g"}) for field in fields
    ]


def spread_columns(spread: Spread) -> dict[str, float]:
    """A spread as columns of a row, with the digits that a picture can show.

    Args:
        spread: The spread.
    """
    return {
        "mean": _short(spread.mean),
        "low": _short(spread.low),
        "high": _short(spread.high),
        "runs": spread.count,
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def csv_data(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Rows as a data source of text, a third of the size of a list of objects.

    Args:
        rows: The rows; all have the columns of the first.
    """
    columns = list(rows[0])

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.5g}"
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if any(letter in text for letter in ',"\n') else text

    text = "\n".join([",".join(columns), *(",".join(cell(row[column]) for column in columns) for row in rows)])
    numbers = {column: "number" for column in columns if isinstance(rows[0][column], int | float)}
    return {"data": {"values": text, "format": {"type": "csv", "parse": numbers}}}


def shapes_of(networks: Sequence[str]) -> Spec:
    """Circles for one kind of network, squares for the other.

    Args:
        networks: The two kinds.
    """
    scale = {"domain": list(networks), "range": ["circle", "square"]}
    return {"field": "network", "type": "nominal", "scale": scale, "legend": {"title": None, "symbolOpacity": 1}}


def pick() -> Spec:
    """A click on a legend's entry picks what it stands for."""
    return {"name": "pick", "select": {"type": "point", "fields": ["colour"]}, "bind": "legend"}


def faded() -> Spec:
    """What is not picked fades."""
    return {"condition": {"param": "pick", "value": 1}, "value": 0.12}
