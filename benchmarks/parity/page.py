"""From the parity runs to their CSV, page and plot."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from scipy import stats

TEXT = """# The authors' script and ours on the same job

Written by `python -m benchmarks.parity`; do not edit. Figures: [`parity.csv`](parity.csv).

The [authors' script](https://github.com/ahmdtaha/knowledge_evolution) and `ke-train`, run in turn on one core, from the
JPEG files of Flowers-102 to the last result: ResNet18 at half width, 64 px, {generations} generations of {epochs}
epochs, KELS with r = 0.5, and the script's own settings (SGD 0.256 with momentum 0.9 and weight decay 1e-4, warm-up of
5 epochs and a cosine in each generation, batches of 32, label smoothing 0.1, its initial weights). Test accuracy in
per cent at the end of each generation, with that generation's last weights; mean ± standard deviation over the seeds,
of which some may have been trained for fewer generations. The two draw different random numbers; `tests/parity` feeds
both the same ones and compares every step.

{table}

A difference of the means stands with half of its 95 % interval (Welch's): only what is larger than that says something.
In early generations the slim network's accuracy varies by several points from seed to seed in either code.

![Test accuracy per generation of both]({plot})

The whole job, ours / theirs, median over seeds: **{processor:.2f} x** in processor time ({ours_processor:.0f} s against
{theirs_processor:.0f} s), {wall:.2f} x in wall-clock time, which other work on the machine disturbed. Ours decodes each
image once, keeps it small in memory and augments tensors; theirs decodes and augments one image after the other in
every epoch. Both ran without worker processes. Ours also writes a checkpoint every epoch, and at the end chooses, tests
and cuts a slim network once more.
"""


def write(table: pd.DataFrame, folder: Path) -> None:
    """Write `parity.csv`, `parity.md` and `parity.png`.

    Args:
        table: A row for each generation of each run.
        folder: Where to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "parity.csv", index=False)
    plot(table, folder / "parity.png")
    longest = table["generations"].max()
    jobs = table[table["generations"] == longest].drop_duplicates(["code", "seed"]).set_index(["code", "seed"])
    processor = (jobs.loc["ours"]["processor_seconds"] / jobs.loc["theirs"]["processor_seconds"]).median()
    wall = (jobs.loc["ours"]["seconds"] / jobs.loc["theirs"]["seconds"]).median()
    content = TEXT.format(
        generations=longest,
        epochs=table["epochs"].iloc[0],
        table=comparison(table),
        plot="parity.png",
        processor=processor,
        wall=wall,
        ours_processor=jobs.loc["ours"]["processor_seconds"].median(),
        theirs_processor=jobs.loc["theirs"]["processor_seconds"].median(),
    )
    (folder / "parity.md").write_text(content, encoding="utf-8")
    print(content)


def comparison(table: pd.DataFrame) -> str:
    """Means of both and their difference, for each generation and network.

    Args:
        table: A row for each generation of each run.
    """
    lines = ["| generation | network | seeds | theirs | ours | difference |", "| --: | :-- | --: | --: | --: | --: |"]
    for generation, rows in table.groupby("generation"):
        for network in ("dense", "slim"):
            scores = {code: 100 * rows[rows["code"] == code][network] for code in ("theirs", "ours")}
            spreads = [f"{values.mean():.1f} ± {values.std():.1f}" for values in scores.values()]
            difference = scores["ours"].mean() - scores["theirs"].mean()
            test = stats.ttest_ind(scores["ours"], scores["theirs"], equal_var=False)
            interval = test.confidence_interval(0.95)
            half = (interval.high - interval.low) / 2
            seeds = min(map(len, scores.values()))
            cells = [str(generation), network, str(seeds), *spreads, f"{difference:+.1f} ± {half:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Test accuracy per generation: a dot for each seed, a line through the means.

    Args:
        table: A row for each generation of each run.
        path: The file.
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
    for panel, network in zip(axes, ("dense", "slim"), strict=True):
        for code, colour, shift in (("theirs", "#7f7f7f", -0.05), ("ours", "#1f77b4", 0.05)):
            rows = table[table["code"] == code]
            means = 100 * rows.groupby("generation")[network].mean()
            panel.scatter(rows["generation"] + shift, 100 * rows[network], color=colour, s=16)
            panel.plot(means.index + shift, means, color=colour, label=code)
        panel.set(title=f"{network} network", xlabel="generation", xticks=sorted(table["generation"].unique()))
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)
