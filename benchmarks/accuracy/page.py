"""From the ledger of a setting to a study's page and plot in `docs/results/`; needs nothing but the CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.accuracy.statistics import LEAST_SEEDS, Difference, paired_difference
from benchmarks.accuracy.study import Arm, Study

# A network is the whole dense one, the slim one cut out of it, or one that was built as small as the slim one.
COLOURS = {"dense": "#1f77b4", "slim": "#d95f02", "small": "#2a9d5c"}

NOTE = """Written by `python -m benchmarks.accuracy {name}` from its setting's [trainings](trainings/{setting}.csv); do
not edit.

Every arm is trained for the same number of epochs, unless its line below says otherwise; "training ops" compares what
the steps of the training cost, those of a network which it begins from or learns from included, validation and the
search for a learning rate not. {rates}
Weights were chosen on validation, too, and the test images were used once. `±` is the standard deviation over seeds; a
difference is the mean over paired seeds with its 95 % interval (Student's t). It counts, and is in bold, only if the
interval is above 0 and of at least {least} seeds; with one seed there is none. No interval is widened because there are
many of them: of forty that hold nothing about one is above 0. A test accuracy of one run has a
standard error of about {error} points of its own. The network is the dense one, the slim one that is cut out of it, or
a small one that was built as large as the slim one.{calibration}"""
CALIBRATION = """ NLL is the test images' cross-entropy, ECE their expected
calibration error in per cent; both are means over the seeds."""
TUNED = """Its learning rate is the best one on
the validation images at seed {seed}, where half as much and twice as much are no better; a variant has that of its
original, and a slim network that of the dense one which it is cut out of."""
TRIED = "Validation accuracy of the dense network at the tuning seed. An arm with one rate has another arm's."
SMALL = "Every network of the slim size beside every control of that size"
UNTUNED = "The learning rate is\nthe same for all of them."


def write(study: Study, table: pd.DataFrame, folder: Path) -> None:
    """Write `NAME.md` and `NAME.png`.

    Args:
        study: The study.
        table: What `of_study` gave.
        folder: Where to write.
    """
    tuned = set(table.loc[table["tuned"], "arm"])
    left = [arm.name for arm in study.arms if arm.name not in tuned]
    shown = {study.arms[0].name, *tuned}  # the first one is what all are compared with, be it trained or not
    study = replace(study, arms=[arm for arm in study.arms if arm.name in shown])
    plot(study, table, folder / f"{study.name}.png")
    parts = [
        f"# {study.title}",
        NOTE.format(
            name=study.name,
            setting=study.setting,
            rates=(TUNED if len(study.rates) > 1 else UNTUNED).format(seed=study.tuning_seed),
            error=f"{standard_error(study, table):.1f}",
            least=LEAST_SEEDS,
            calibration=CALIBRATION if bool(table["test_ece"].notna().any()) else "",
        ),
        *([study.about] if study.about else []),
        comparison(study, table),
        f"![Test accuracy of every network, one dot per seed]({study.name}.png)",
        *([f"## {SMALL}\n\n{beside_controls(study, table)}"] if study.controls else []),
        *([f"## What it says\n\n{study.findings}"] if study.findings else []),
        "## The arms\n\n" + "\n".join(f"- **{arm.name}**: {arm.meaning}" for arm in study.arms),
        *([f"Not trained yet, or its learning rate not found: {', '.join(left)}."] if left else []),
        *([f"## Learning rates\n\n{TRIED}\n\n{tuning(study, table)}"] if len(study.rates) > 1 else []),
        "## How it was run\n\n" + how(study, table),
    ]
    (folder / f"{study.name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def comparison(study: Study, table: pd.DataFrame) -> str:
    """The main table: each arm's networks beside the long baseline and beside the network of the slim size.

    Args:
        study: The study.
        table: What `of_study` gave.
    """
    tuned = table[table["tuned"]]
    controls = (study.arms[0].name, study.same_size)
    control_scores = [_scores(tuned, name) for name in controls]
    tuned_rates = len(study.rates) > 1
    calibrated = bool(tuned["test_ece"].notna().any())
    columns = ["arm", "network", *(["lr"] if tuned_rates else []), "seeds", "validation", "test"]
    columns += [*(["NLL", "ECE"] if calibrated else []), "ops", "training ops"]
    columns += [f"to {name}" for name in controls]
    baseline = tuned[(tuned["arm"] == study.arms[0].name) & (tuned["network"] == "dense")]
    lines: list[list[str]] = []
    for arm, network, rows in _networks(study, tuned):
        own = rows.set_index("seed")["test_acc"]
        versus = [
            "-" if arm.name == name and network != "slim" else _points(paired_difference(own, control))
            for name, control in zip(controls, control_scores, strict=True)
        ]
        cost = rows["training_operations"].iloc[0] / baseline["training_operations"].iloc[0] if len(baseline) else 0
        lines.append(
            [
                arm.name,
                network,
                *([f"{rows['lr'].iloc[0]:g}"] if tuned_rates else []),
                str(len(rows)),
                _spread(rows["val_acc"]),
                _spread(rows["test_acc"]),
                *([f"{rows['test_loss'].mean():.2f}", f"{100 * rows['test_ece'].mean():.1f}"] if calibrated else []),
                f"{rows['operations'].iloc[0] / 1e6:.1f} M",
                f"{cost:.2f} x" if cost else "-",
                *versus,
            ]
        )
    return _markdown(columns, lines)


def beside_controls(study: Study, table: pd.DataFrame) -> str:
    """The table of what is as small as the slim network: paired differences to each control of that size.

    Args:
        study: The study.
        table: What `of_study` gave.
    """
    tuned = table[table["tuned"]]
    controls = {name: _scores(tuned, name) for name in study.controls}
    lines = []
    for arm, network, rows in _networks(study, tuned):
        if network == "dense":
            continue
        own = rows.set_index("seed")["test_acc"]
        versus = [
            "-" if arm.name == name else _points(paired_difference(own, control)) for name, control in controls.items()
        ]
        lines.append([arm.name, network, str(len(rows)), _spread(rows["test_acc"]), *versus])
    return _markdown(["arm", "network", "seeds", "test", *(f"to {name}" for name in controls)], lines)


def standard_error(study: Study, table: pd.DataFrame) -> float:
    """The standard error of one run's test accuracy in points, at the accuracy that the study's networks have.

    Args:
        study: The study.
        table: What `of_study` gave.
    """
    accuracy = table.loc[table["network"] == "dense", "test_acc"].mean()
    return 100 * math.sqrt(accuracy * (1 - accuracy) / study.test_images)


def tuning(study: Study, table: pd.DataFrame) -> str:
    """Every learning rate that was tried, the chosen ones in bold.

    Args:
        study: The study.
        table: What `of_study` gave.
    """
    tried = table[(table["seed"] == study.tuning_seed) & (table["network"] == "dense")]
    rates = sorted(tried["lr"].unique())
    lines = []
    for arm in study.arms:
        cells = [arm.name]
        for rate in rates:
            row = tried[(tried["arm"] == arm.name) & (tried["lr"] == rate)]
            text = "-" if row.empty else f"{100 * row['val_acc'].iloc[0]:.1f}"
            cells.append(f"**{text}**" if len(row) and row["tuned"].iloc[0] else text)
        lines.append(cells)
    return _markdown(["arm", *(f"{rate:g}" for rate in rates)], lines)


def how(study: Study, table: pd.DataFrame) -> str:
    """The overrides of every job, the versions and the time it took.

    Args:
        study: The study.
        table: What `of_study` gave.
    """
    jobs = table.drop_duplicates(["arm", "lr", "seed"])
    versions = "; ".join(
        f"{name} {', '.join(map(str, sorted(table[name].unique())))}"
        for name in ("lightning_ke", "lightning", "torch", "python")
    )
    shown = [override for override in study.base if not override.startswith("datamodule.root=")]
    return (
        f"{len(jobs)} trainings, {jobs['seconds'].sum() / 3600:.1f} hours on one core each; {versions}. Every job:\n\n"
        f"```text\nke-train {' '.join(shown)} datamodule.root=DIR\n```\n\nand for each arm:\n\n"
        "```text\n" + "\n".join(f"{arm.name}: {arm.config}" for arm in study.arms) + "\n```"
    )


def plot(study: Study, table: pd.DataFrame, path: Path) -> None:
    """Test accuracy of every arm: a dot for each seed, a bar at the mean.

    Args:
        study: The study.
        table: What `of_study` gave.
        path: The file.
    """
    tuned = table[table["tuned"]]
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(study.arms) + 1.2), layout="constrained")
    places = {arm.name: position for position, arm in enumerate(study.arms)}
    labelled = set[str]()
    for arm, network, rows in _networks(study, tuned):
        place = places[arm.name] + (0.15 if network == "slim" else -0.15 if arm.trains_slim else 0)
        values, colour = 100 * rows["test_acc"], COLOURS[network]
        label = None if network in labelled else network  # one entry in the legend
        labelled.add(network)
        axes.scatter(values, [place] * len(values), color=colour, s=18, label=label)
        axes.plot([values.mean()] * 2, [place - 0.12, place + 0.12], color=colour, lw=2)
    for name, style in ((study.arms[0].name, "--"), (study.same_size, ":")):
        values = _scores(tuned, name)
        if len(values):
            axes.axvline(100 * values.mean(), color="grey", ls=style, lw=1, zorder=0, label=name)
    axes.set_yticks(range(len(study.arms)), [arm.name for arm in study.arms])
    axes.set_ylim(len(study.arms) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, %")
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _networks(study: Study, tuned: pd.DataFrame) -> Iterator[tuple[Arm, str, pd.DataFrame]]:
    """Every network that was trained, with what it is and its rows; arm by arm, the dense one first."""
    whole = tuned[tuned["network"] == "dense"]
    slim_size = whole.loc[whole["arm"] == study.same_size, "operations"].max()
    for arm in study.arms:
        rows = whole[whole["arm"] == arm.name]
        if len(rows):
            yield arm, "small" if rows["operations"].iloc[0] <= slim_size else "dense", rows
        rows = tuned[(tuned["arm"] == arm.name) & (tuned["network"] == "slim")]
        # A mask is drawn for every arm; where nothing is redrawn its "slim network" was never trained to be one.
        if len(rows) and arm.trains_slim:
            yield arm, "slim", rows


def _scores(tuned: pd.DataFrame, arm: str) -> pd.Series[float]:
    """Test accuracy of an arm's whole network, by seed."""
    rows = tuned[(tuned["arm"] == arm) & (tuned["network"] == "dense")]
    return rows.set_index("seed")["test_acc"]


def _spread(values: pd.Series[float]) -> str:
    spread = f" ± {100 * values.std():.1f}" if len(values) > 1 else ""
    return f"{100 * values.mean():.1f}{spread}"


def _points(difference: Difference | None) -> str:
    if difference is None:
        return "one seed"
    text = f"{100 * difference.mean:+.1f} ± {100 * difference.half_width:.1f}"
    return f"**{text}**" if difference.beats else text


def _markdown(columns: list[str], lines: list[list[str]]) -> str:
    rule = [":--", *["--:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *lines))
