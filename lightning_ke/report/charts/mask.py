"""The mask, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from lightning_ke.report.charts.base import Chart, Spec, choice_of, csv_data, tooltip
from lightning_ke.report.lines import Line


def mask_chart(lines: Sequence[Line]) -> Chart | None:
    """The share of each layer that is fit; several masks behind a list to choose from.

    Args:
        lines: The lines.
    """
    masks: list[tuple[str, list[dict[str, Any]]]] = []
    for line in lines:
        for run in line.runs:
            if run.mask and all(layers != run.mask for _, layers in masks):
                name = line.label if all(name != line.label for name, _ in masks) else f"{line.label}, seed {run.seed}"
                masks.append((name, run.mask))
    if not masks:
        return None
    rows = [{"m": number} | row for number, (_, mask) in enumerate(masks) for row in mask_layers(mask)]
    prefix = _common([row["layer"] for row in rows])
    for row in rows:
        row["layer"] = row["layer"].removeprefix(prefix)
    names = list(dict.fromkeys(row["layer"] for row in rows))
    spec: Spec = {
        **csv_data(rows),
        "height": 16 * max(len(mask_layers(mask)) for _, mask in masks) + 10,
        "mark": {"type": "bar", "height": {"band": 0.75}},
        "encoding": {
            "y": {
                "field": "layer",
                "type": "nominal",
                "sort": names if len(masks) == 1 else None,
                "title": None,
                "axis": {"labelLimit": 170, "ticks": False},
            },
            "x": {
                "field": "share",
                "type": "quantitative",
                "title": "share that is fit",
                "scale": {"domain": [0, 1]},
                "axis": {"format": "%", "orient": "top", "tickCount": 5},
            },
            "tooltip": tooltip(["layer", "shape", "entries", "fit", "share"]),
        },
    }
    if len(masks) > 1:
        spec |= choice_of("m", "Mask of", [name for name, _ in masks])
    caption = "The share of each layer's parameters, weights and biases together, that belongs to the fit hypothesis."
    return Chart("mask", "The mask, layer by layer", caption, spec)


def mask_layers(mask: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The mask by layers: the parameters of one module together.

    Args:
        mask: ``name`` and ``shape`` of each parameter, and the share of it that is ``fit``.

    Example:
        >>> bias = {"name": "fc.bias", "shape": [4], "fit": 0.5}
        >>> mask_layers([{"name": "fc.weight", "shape": [4, 2], "fit": 0.25}, bias])
        [{'layer': 'fc', 'shape': '4 x 2', 'entries': 12, 'fit': 4, 'share': 0.3333}]
    """
    layers: dict[str, dict[str, Any]] = {}
    for parameter in mask:
        name = parameter["name"].rpartition(".")[0] or parameter["name"]
        shape = " x ".join(map(str, parameter["shape"]))
        layer = layers.setdefault(name, {"layer": name, "shape": shape, "entries": 0, "fit": 0})
        entries = math.prod(parameter["shape"])
        layer["entries"] += entries
        layer["fit"] += round(parameter["fit"] * entries)
    return [layer | {"share": round(layer["fit"] / max(layer["entries"], 1), 4)} for layer in layers.values()]


def _common(names: Sequence[str]) -> str:
    """What all names begin with, up to a dot: ``"backbone."``."""
    first, last = min(names).split("."), max(names).split(".")
    shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first[:-1], last, strict=False))]
    return "".join(f"{part}." for part in shared)
