"""Which statistics suit the slim network's BatchNorm layers: the dense network's, or its own, estimated anew?

    python -m benchmarks.norms RUN ... [--results docs/results]

Each RUN is the folder of a finished run of `ke-train` with the split KELS, such as `benchmarks.accuracy` leaves below
its `--out`. Its last network is scored on its validation images, dense and slim, with both statistics; nothing is
trained. `norms.csv` gets a row as soon as a run has been scored, runs that have one are left out; the page is written
from all rows.
"""

from __future__ import annotations

import argparse
import copy
import logging
import warnings
from pathlib import Path

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from lightning_ke import extract_slim
from lightning_ke.app.build import build
from lightning_ke.app.experiment import build_task
from lightning_ke.app.outcome import load_mask
from lightning_ke.app.run_folder import RunFolder
from lightning_ke.recalibration import recalibrate_norm

TITLE = "Which statistics the slim network has"
INTRO = """A network that is cut out of a KELS run has the dense network's BatchNorm statistics, unless they are
estimated anew (`generations.fit_norm=reestimate`; `recalibrate` of `slim_network`). Here each run's last network is
scored on its 1,020 validation images with both, dense and slim; the weights are the same, and nothing was chosen by
these scores. The runs are those of [Pilot](pilot.md), [Better generations](better.md) and
[Splits and losses](losses.md) whose checkpoints were at hand, not a sample drawn for this purpose; one seed each but
for ke-3."""
FINDINGS = """- **Most of what the slim network lacks after few generations is its statistics.** After two generations
  of 100 epochs it is at 5.7 % with the dense network's and at 31.4 % with its own; after three of 66 epochs, at two
  seeds, at 27.0 and 21.4 %, and at 42.1 and 43.3 %. With more generations there is less to gain: 1.8 to 4.5 points
  after five, and nothing after ten (-0.2), where slim and dense network have nearly the same statistics.
- So what [Pilot](pilot.md) says of the number of redraws, that it brings the slim network up, is true of the published
  way to score it. Of the distance between three and five generations two thirds or more are the statistics'.
- Forgetting inside of KELS leaves the slim network far behind either way (38.8 beside 49.5 dense; 38.2 beside 50.8),
  and so do two generations: there the weights themselves have not learnt to stand alone.
- The dense network is what it was but for -0.5 to 1.7 points, so it is not the fresh estimate as such that is better.

The estimate is made of one epoch of randomly cropped training images; another draw of them moves these figures by half
a point or so. Elsewhere in these results slim networks have the dense network's statistics, which is how the paper
scores them; only ke-reestimated and the slimmable arms have their own. Whether a slim network of five generations with
its own statistics is above one from scratch is asked in [Splits and losses](losses.md)."""


def score(run: Path) -> dict[str, float | int | str]:
    """Score a run's last network, dense and slim, with both statistics.

    Args:
        run: Its folder.
    """
    config, checkpoint = RunFolder(run).config, run / "checkpoints" / "last.ckpt"
    seed_everything(config.seed, verbose=False)  # the training images are cropped at random
    data = build(config.datamodule)
    data.prepare_data()
    task = build_task(config, data)
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    task.load_state_dict({name: weights[name] for name in task.state_dict()})
    slim = extract_slim(task, load_mask(str(checkpoint)))
    data.setup("fit")
    trainer = Trainer(
        accelerator="cpu",
        precision=config.trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    def accuracy(network: LightningModule) -> float:
        return trainer.validate(network, data, verbose=False)[0]["val_acc"]

    row: dict[str, float | int | str] = {"run": run.name, "generations": config.generations.count}
    for name, network in (("dense", copy.deepcopy(task)), ("slim", slim)):
        row[name] = accuracy(network)
        recalibrate_norm(network, data.train_dataloader(), task)
        row[f"{name}_own"] = accuracy(network)
    return row | {"torch": torch.__version__}


def page(table: pd.DataFrame) -> str:
    """The page of all rows.

    Args:
        table: `norms.csv`.
    """
    lines = [
        "| run | generations | slim, dense statistics | slim, its own | gain | dense | dense, estimated anew |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for row in table.sort_values(["generations", "run"]).itertuples():
        gain = 100 * (row.slim_own - row.slim)
        cells = [f"{100 * value:.1f}" for value in (row.slim, row.slim_own, row.dense, row.dense_own)]
        lines.append(
            f"| {row.run} | {row.generations} | {cells[0]} | {cells[1]} | {gain:+.1f} | {cells[2]} | {cells[3]} |"
        )
    parts = [
        f"# {TITLE}",
        "Written by `python -m benchmarks.norms` from [`norms.csv`](norms.csv); do not edit.",
        INTRO,
        "Validation accuracy in %. The name of a run ends with its learning rate and its seed.",
        "\n".join(lines),
        f"## What it says\n\n{FINDINGS}",
        f"torch {', '.join(sorted(table['torch'].unique()))}.",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Score the runs that have no row yet, and write CSV and page."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of CSV and page")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    path = options.results / "norms.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for run in options.runs:
        if run.name not in [row["run"] for row in rows]:
            rows.append(score(run))
            pd.DataFrame(rows).to_csv(path, index=False)
    (options.results / "norms.md").write_text(page(pd.DataFrame(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
