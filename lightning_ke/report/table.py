"""Tables of a run, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ke.cost import Cost


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading.

    Args:
        columns: Heading of each column.
        rows: The cells, as many in each row as there are columns.

    Example:
        >>> print(Table(("network", "val_acc"), [("dense", "0.8100"), ("slim", "0.80")]))
        network  val_acc
        dense     0.8100
        slim        0.80
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.columns, *self.rows)
        )

    def markdown(self) -> str:
        """The table in Markdown, numbers to the right."""
        rule = [":--", *["--:"] * (len(self.columns) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in (self.columns, rule, *self.rows))


def generation_table(
    history: Sequence[Mapping[str, Any]], metric: str, dense: Cost | None = None, slim: Cost | None = None
) -> Table:
    """One row per generation: dense and fit score, what changed since the first generation, what the fit one costs.

    Args:
        history: The callback's records.
        metric: Name of the score, as the module logs it.
        dense: Cost of the dense network, if known.
        slim: Cost of the slim network, if there is one.

    Example:
        >>> history = [
        ...     {"generation": 1, "epochs": 2, "dense": {"val_acc": 0.70}, "fit": {"val_acc": 0.10}},
        ...     {"generation": 2, "epochs": 2, "dense": {"val_acc": 0.75}, "fit": {"val_acc": 0.74}},
        ... ]
        >>> print(generation_table(history, "val_acc"))
        generation  epochs   dense   to N1     fit   to N1
        1                2  0.7000          0.1000  -0.6000
        2                2  0.7500  +0.0500  0.7400  +0.0400
    """
    columns = ["generation", "epochs", "dense", "to N1", "fit", "to N1"]
    if slim is not None:
        columns += ["fit operations", "fit parameters"]
    first = history[0]["dense"].get(metric) if history else None
    rows = []
    for number, record in enumerate(history):
        scores = {kind: (record.get(kind) or {}).get(metric) for kind in ("dense", "fit")}
        row = [
            str(record["generation"]),
            str(record["epochs"]),
            _score(scores["dense"]),
            _difference(scores["dense"], first) if number else "",
            _score(scores["fit"]),
            _difference(scores["fit"], first),
        ]
        if slim is not None:
            whole = dense or slim
            row += [_share(slim.ops, whole.ops), _share(slim.params, whole.params)]
        rows.append(row)
    return Table(columns, rows)


@dataclass(frozen=True)
class NetworkRow:
    """One network of a run.

    Args:
        name: What it is.
        scores: Its scores, by name; in the order of the columns.
        cost: What it costs.
    """

    name: str
    scores: Mapping[str, float]
    cost: Cost


def network_table(networks: Sequence[NetworkRow]) -> Table:
    """One row per network: scores, operations and parameters, beside the first network's.

    Args:
        networks: The dense network first.
    """
    first = networks[0]
    shown = [name for name in first.scores if name != "test_loss"]  # it is in the results, but nobody compares by it
    columns = ["network", *shown, "operations", "parameters"]
    rows = [
        [
            network.name,
            *map(_score, (network.scores.get(name) for name in shown)),
            _share(network.cost.ops, first.cost.ops if network is not first else None),
            _share(network.cost.params, first.cost.params if network is not first else None),
        ]
        for network in networks
    ]
    return Table(columns, rows)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _difference(value: float | None, first: float | None) -> str:
    return "-" if value is None or first is None else f"{value - first:+.4f}"


def _share(count: int, whole: int | None) -> str:
    size, letter = next(((s, n) for s, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= s), (1, ""))
    text = f"{count / size:.2f} {letter}".strip()
    return text if whole is None else f"{text} ({100 * (count / whole - 1):+.1f} %)"
