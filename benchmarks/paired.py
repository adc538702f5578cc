"""Studies of several groups, arms and seeds: rows that grow line by line, then one CSV, page and plot of them."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import math
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import matplotlib.pyplot as plt
import pandas as pd
import torch

from benchmarks.accuracy.statistics import LEAST_SEEDS, Difference, paired_difference

HOW_TO_READ = f"""Mean and standard deviation over the seeds. A difference is the mean over paired seeds with its 95 %
interval (Student's t); in bold if the interval excludes 0 and there are at least {LEAST_SEEDS} seeds."""
HISTORY = "Mean validation score (of the metric that is compared) at the end of each generation: dense / slim."

_DIGITS = {"%": (100, 1), "°": (1, 1), "": (1, 3)}


@dataclass(frozen=True)
class Study:
    """What is compared, and what its page says of it.

    Args:
        name: Name of its files.
        title: Heading of its page.
        baseline: The arm that every dense and slim network is compared with.
        same_size: The arm of the slim networks' size.
        metrics: Name in the rows to what it is called and its unit, "%" (shares, shown times 100), "°" or "". The first
            one that a group has is compared and plotted.
        intro: What was done, in Markdown.
        command: How to repeat it.
        findings: What the results say, in Markdown.
    """

    name: str
    title: str
    baseline: str
    same_size: str
    metrics: Mapping[str, tuple[str, str]]
    intro: str
    command: str
    findings: str = ""


Run = Callable[[str, str, int], Mapping[str, Any]]


def command_line(
    study: Study, groups: Sequence[str], arms: Sequence[str], seeds: int, prepare: Callable[[Path], Run]
) -> None:
    """Run what is left of a study and write its results, as the command line says.

    Args:
        study: The study.
        groups: Its groups, all of which are run unless the command line names some.
        arms: Its arms.
        seeds: Number of seeds unless the command line says another.
        prepare: From the folder of the data to what runs a case.
    """
    parser = argparse.ArgumentParser(description=f"{study.title}. Example: {study.command}")
    parser.add_argument("root", type=Path, help="folder of the data")
    parser.add_argument("out", type=Path, help="file of the finished runs, a line each; what it has is not repeated")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--groups", nargs="+", choices=groups, default=groups)
    parser.add_argument("--collect", action="store_true", help="train nothing, only write what there is")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of CSV, page and plot")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if not options.collect:
        cases = [(group, arm, seed) for seed in range(options.seeds) for group in options.groups for arm in arms]
        run_missing(options.out, cases, prepare(options.root))
    write(study, options.out, options.results)


def run_missing(path: Path, cases: Iterable[tuple[str, str, int]], run: Run) -> None:
    """Run the cases that the file has no line of, one after the other; one process at a time.

    Args:
        path: File of JSON lines, each with "group", "arm" and "seed".
        cases: (group, arm, seed), the most important first.
        run: From a case to its line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = {(row["group"], row["arm"], row["seed"]) for row in read(path)}
        for case in cases:
            if case not in done:
                row = {**run(*case), "torch": torch.__version__, "lightning": lightning.__version__}
                with path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row | {"python": platform.python_version()}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The finished runs of a file; a line that was being written when the process ended is not one.

    Args:
        path: File of JSON lines.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError:
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
        return [json.loads(line) for line in lines[:-1]]


def collect(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each network of each run.

    Args:
        rows: The runs.
    """
    plain = ("group", "arm", "seed", "seconds", "torch", "lightning", "python")
    return pd.DataFrame(
        [
            {"network": name, **{key: row[key] for key in plain}, **scores}
            for row in rows
            for name, scores in row["networks"].items()
        ]
    )


def write(study: Study, path: Path, folder: Path) -> None:
    """Write `NAME.csv`, `NAME.md` and `NAME.png`.

    Args:
        study: The study.
        path: File of its runs.
        folder: Where to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = collect(read(path))
    table.to_csv(folder / f"{study.name}.csv", index=False)
    (folder / f"{study.name}.md").write_text(page(study, table, histories(read(path))), encoding="utf-8")
    plot(study, table, folder / f"{study.name}.png")


def page(study: Study, table: pd.DataFrame, history: str) -> str:
    """The page of a study.

    Args:
        study: The study.
        table: What `collect` gave.
        history: A table of the generations, in Markdown.
    """
    versions = ", ".join(
        f"{name} {' '.join(sorted(table[name].unique()))}" for name in ("torch", "lightning", "python")
    )
    hours = table.drop_duplicates(["group", "arm", "seed"])["seconds"].sum() / 3600
    parts = [
        f"# {study.title}",
        f"Written by `{study.command.split(' --')[0]}` from [`{study.name}.csv`]({study.name}.csv); do not edit.",
        study.intro,
        f"## Results\n\n{HOW_TO_READ}",
        results(study, table),
        f"![{_compared(study, table)}: a dot for each seed, a bar at the mean]({study.name}.png)",
        *([f"## What it says\n\n{study.findings}"] if study.findings else []),
        f"## Generations\n\n{HISTORY}",
        history,
        f"## How it was run\n\n{hours:.1f} hours of training on one thread of a shared CPU; {versions}.",
        f"```console\n{study.command}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def results(study: Study, table: pd.DataFrame) -> str:
    """Every network of every group beside both controls.

    Args:
        study: The study.
        table: What `collect` gave.
    """
    firsts = {group: _first(study, rows) for group, rows in table.groupby("group")}
    alike = len(set(firsts.values())) == 1
    # Groups of different metrics show the one that is compared, and name it.
    names = [_title(study, name) for name in study.metrics] if alike else ["score"]
    columns = ["group", "arm", "network", "seeds", "parameters", *names]
    columns += [f"{_compared(study, table)}, to {control}" for control in (study.baseline, study.same_size)]
    lines = []
    for (group, arm, network), rows in table.groupby(["group", "arm", "network"], sort=False):
        metric = firsts[group]
        _, unit = study.metrics[metric]
        cells = [str(group) if alike else f"{group}: {_title(study, metric)}", str(arm), str(network), str(len(rows))]
        cells.append(f"{rows['parameters'].iloc[0]:,}")
        shown = study.metrics if alike else [metric]
        cells += [_spread(rows[name], study.metrics[name][1]) for name in shown]
        for control in (study.baseline, study.same_size):
            other = _scores(table, group, control, "dense", metric)
            own = _scores(table, group, arm, network, metric)
            same = arm == control and network == "dense"
            cells.append("-" if same else _difference(paired_difference(own, other), unit))
        lines.append(cells)
    return markdown(columns, lines)


def histories(rows: Iterable[Mapping[str, Any]]) -> str:
    """The mean validation scores at the end of each generation, a column for each group.

    Args:
        rows: The runs.
    """
    scores = {}
    for row in rows:
        for number, (dense, fit) in enumerate(row.get("history", ()), 1):
            scores.setdefault((row["group"], number), []).append((dense, fit))
    means = {key: pd.DataFrame(pairs).mean() for key, pairs in scores.items()}
    groups = list(dict.fromkeys(group for group, _ in means))
    numbers = sorted({number for _, number in means})
    cells = [[str(n), *(f"{means[g, n][0]:.3f} / {means[g, n][1]:.3f}" for g in groups)] for n in numbers]
    return markdown(["generation", *groups], cells)


def plot(study: Study, table: pd.DataFrame, path: Path) -> None:
    """The first metric of every network: a dot for each seed, a bar at the mean, a panel for each group.

    Args:
        study: The study.
        table: What `collect` gave.
        path: The file.
    """
    groups = list(table["group"].unique())
    across = min(3, len(groups))
    down = math.ceil(len(groups) / across)
    size = (3.2 * across + 1, 2.6 * down)
    figure, panels = plt.subplots(down, across, figsize=size, layout="constrained", sharey=True, squeeze=False)
    networks = list(table[["arm", "network"]].drop_duplicates().itertuples(index=False, name=None))
    names = [arm if network == "dense" and arm != "kels" else f"{arm}, {network}" for arm, network in networks]
    for axes in panels.flat[len(groups) :]:
        axes.axis("off")
    for axes, group in zip(panels.flat[: len(groups)], groups, strict=True):
        metric = _first(study, table[table["group"] == group])
        _, unit = study.metrics[metric]
        for position, (arm, network) in enumerate(networks):
            values = _scores(table, group, arm, network, metric) * (100 if unit == "%" else 1)
            colour = "#d95f02" if network == "slim" else "#1f77b4"
            heights = [position + 0.05 * (number - (len(values) - 1) / 2) for number in range(len(values))]
            axes.scatter(values, heights, color=colour, s=12, alpha=0.6, linewidths=0)
            axes.plot([values.mean()] * 2, [position - 0.35, position + 0.35], color=colour, lw=2)
        axes.set_title(group, fontsize=10)
        axes.set_xlabel(_title(study, metric))
        axes.grid(axis="x", alpha=0.3)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def markdown(columns: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown, its first column to the left.

    Args:
        columns: Headings.
        lines: Cells.
    """
    rule = [":--", *["--:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *lines))


def _scores(table: pd.DataFrame, group: object, arm: object, network: object, metric: str) -> pd.Series[float]:
    rows = table[(table["group"] == group) & (table["arm"] == arm) & (table["network"] == network)]
    return rows.set_index("seed")[metric]


def _first(study: Study, rows: pd.DataFrame) -> str:
    """Name of the first metric that rows of one group have."""
    return next(name for name in study.metrics if name in rows and bool(rows[name].notna().any()))


def _title(study: Study, metric: str) -> str:
    """A metric's name and unit."""
    label, unit = study.metrics[metric]
    return f"{label}, {unit}" if unit else label


def _compared(study: Study, table: pd.DataFrame) -> str:
    """What is compared, in words."""
    first = {study.metrics[_first(study, rows)][0] for _, rows in table.groupby("group")}
    return first.pop() if len(first) == 1 else "score"


def _spread(values: pd.Series[float], unit: str) -> str:
    scale, digits = _DIGITS[unit]
    spread = f" ± {scale * values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{scale * values.mean():.{digits}f}{spread}"


def _difference(difference: Difference | None, unit: str) -> str:
    if difference is None:
        return "one seed"
    scale, digits = _DIGITS[unit]
    text = f"{scale * difference.mean:+.{digits}f} ± {scale * difference.half_width:.{digits}f}"
    told = difference.seeds >= LEAST_SEEDS and abs(difference.mean) > difference.half_width
    return f"**{text}**" if told else text
