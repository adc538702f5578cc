"""The charts of a report as Vega-Lite specifications, the same ones for the page and for the pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_ke.report.charts.base import Chart, Spec
from lightning_ke.report.charts.epochs import loss_chart, lr_chart
from lightning_ke.report.charts.mask import mask_chart, mask_layers
from lightning_ke.report.charts.scores import costs_chart, generations_chart, rates_chart
from lightning_ke.report.lines import Line

__all__ = ["Chart", "Spec", "charts_of", "mask_layers"]


def charts_of(lines: Sequence[Line], monitor: str, tested: str, mode: str) -> list[Chart]:
    """All charts for which the runs hold something.

    Args:
        lines: The runs, by what they have in common.
        monitor: Name of the validation score.
        tested: Name of the score of the tested networks.
        mode: Whether more (``"max"``) or less (``"min"``) of a score is better.
    """
    found = [
        generations_chart(lines, monitor),
        rates_chart(lines, monitor),
        costs_chart(lines, tested, mode),
        mask_chart(lines),
        loss_chart(lines),
        lr_chart(lines),
    ]
    return [chart for chart in found if chart is not None]
