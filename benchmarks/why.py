"""Why: does redrawing leave the minimum, what becomes of the weights, how fast do slim and dense become one function?

    python -m benchmarks.why OUT.jsonl [--seeds 3] [--collect]

OUT gets one line for each run; runs that it has already are not repeated, so stop it whenever you like. Then (with
--collect at once) CSV, page and plot are written to `docs/results/`. The images come with the package.
"""

from __future__ import annotations

import argparse
import copy
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.paired import markdown, read, run_missing
from benchmarks.training import fit
from lightning_ke import KnowledgeEvolution, extract_slim
from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.data import EmbeddedDataModule
from lightning_ke.recalibration import reestimate_norm
from lightning_ke.tasks import Classification
from lightning_ke.tasks.schedules import cosine_with_warmup

GENERATIONS, EPOCHS, RATE, POINTS = 5, 12, 0.1, 11
ARMS: dict[str, dict[str, Any]] = {
    "kels": {"split": "kels", "rate": 0.5},
    "wels": {"split": "wels", "rate": 0.5},
    "restarts": {"split": "kels", "rate": 0.5, "reset": "none"},
    "long": {"split": "kels", "rate": 0.5, "reset": "none", "optimizer": "keep", "lr_schedule": "continue"},
}
COLUMNS = {
    "barrier": "barrier, training loss",
    "val_barrier": "barrier, validation loss",
    "moved_fit": "fit weights moved",
    "moved_reset": "reset weights moved",
    "size_fit": "mean size, fit",
    "size_reset": "mean size, reset",
    "agreement": "slim = dense, %",
    "val_acc": "dense, %",
    "slim_acc": "slim, %",
}
INTRO = f"""{GENERATIONS} generations of {EPOCHS} epochs on the embedded images (1,000 to train on, 500 to validate),
ResNet18 of half the width, SGD with learning rate {RATE}, label smoothing 0.1. Each row is about the network at the end
of a generation; means over the seeds, standard deviation behind ±.

- **barrier**: the highest loss on the straight line between the networks at the ends of this generation and of the one
  before, above the straight line between their losses ({POINTS} points; statistics of the norm layers re-estimated at
  each). About 0: both lie in one valley. Clearly above: training has gone elsewhere.
- **moved**: the distance between the same two networks over the norm of the earlier one, of weights of the fit and of
  the reset hypothesis.
- **mean size**: mean absolute value of the weights.
- **slim = dense**: of the validation images, those that both put into one class, statistics re-estimated for both.

The arms: `kels` keeps half of the channels, `wels` half of the weights; `restarts` redraws nothing, but optimizer and
schedule start over; `long` is plain training with one schedule over all epochs (its "generations" are {EPOCHS} epochs
each). For the last two the hypotheses are those that `kels` would have."""

FINDINGS = """Three seeds, one small setting: a first look.

- The first redraw of a KELS run leaves the valley: on the line between the ends of the first two generations
  the training loss rises by 0.24 ± 0.02. The later ones hardly do (0.05, then 0.01 and less). WELS rises by 0.06 ± 0.04
  once. Restarts without a redraw, and plain training, never leave it.
- Why it stops: from the second generation on what is redrawn says little. The layers' own draw is less than half as
  large (0.013) as the weights that torchvision's ResNet begins with and the fit ones keep (0.031), and training hardly
  moves it: the ends of the last three generations differ by 1.40 of their norm, and two draws that nobody has trained
  would by 1.41. In this network 62 % of the weights never get a gradient (its last stages see single pixels at 28 px),
  which is a part of that.
- So slim and dense network become one function quickly: they agree on 42 % of the images after one generation, 82 %
  after two, 94 % after five. The dense network's validation accuracy is that of mere restarts after two generations and
  falls behind later (77.3 ± 0.5 against 79.7 ± 0.3 at the end)."""


class Ends(Callback):
    """Keeps the network of each generation's end."""

    def __init__(self, evolution: KnowledgeEvolution) -> None:
        self.evolution = evolution
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if len(self.evolution.history) > len(self.states):
            self.states.append(copy.deepcopy(pl_module.backbone.state_dict()))


def run(_: str, arm: str, seed: int) -> dict[str, Any]:
    """Train one arm and look at what it has left behind."""
    seed_everything(seed, verbose=False)
    data = EmbeddedDataModule(batch_size=50, crop_scale=(0.5, 1.0))
    task = Classification(
        torchvision_backbone("resnet18", 10, 1, width=0.5),
        10,
        optimizer=partial(SGD, lr=RATE, momentum=0.9, weight_decay=1e-4),
        scheduler=partial(cosine_with_warmup, warmup=1),
    )
    task.example_input_array = torch.zeros(2, 1, 28, 28)
    evolution = KnowledgeEvolution(**{"epochs_per_generation": EPOCHS, "seed": seed, "score_fit": False, **ARMS[arm]})
    ends = Ends(evolution)
    _, seconds = fit(task, data, GENERATIONS * EPOCHS, [evolution, ends], validate_every=EPOCHS)
    data.augment(0)  # whole images from here on
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    network, member = task.backbone, evolution.mask
    rows = []
    for number, state in enumerate(ends.states, 1):
        row: dict[str, Any] = {"generation": number}
        for name in ("fit", "reset"):
            row[f"size_{name}"] = float(torch.cat([w.abs() for w in _weights(state, member, name)]).mean())
        if number > 1:
            before = ends.states[number - 2]
            row |= _line(network, before, state, train, val)
            for name in ("fit", "reset"):
                old, new = (torch.cat(_weights(s, member, name)) for s in (before, state))
                row[f"moved_{name}"] = float((new - old).norm() / old.norm())
        network.load_state_dict(state)
        dense = _scores(network, train, val)
        labels = torch.cat([batch[1] for batch in val])
        row["val_acc"] = float((dense.argmax(1) == labels).float().mean())
        if member.structure is not None:
            slim = _scores(extract_slim(task, member).backbone, train, val)
            row["agreement"] = float((slim.argmax(1) == dense.argmax(1)).float().mean())
            row["slim_acc"] = float((slim.argmax(1) == labels).float().mean())
        rows.append(row)
    return {"group": "why", "arm": arm, "seed": seed, "seconds": seconds, "ends": rows}


def _weights(state: dict[str, Tensor], mask: Any, name: str) -> list[Tensor]:
    """The weights of convolutions and linear layers that are fit, or that are not."""
    found = []
    for key, value in state.items():
        if value.dim() > 1:
            member = mask[f"backbone.{key}"]
            found.append(value[member if name == "fit" else ~member])
    return found


def _line(network: nn.Module, before: dict[str, Tensor], after: dict[str, Tensor], train: Any, val: Any) -> Any:
    """How far the loss rises above the straight line between two networks' losses."""
    losses = []
    shares = torch.linspace(0, 1, POINTS).tolist()
    for share in shares:
        mixed = {k: torch.lerp(v, after[k], share) if v.is_floating_point() else v for k, v in before.items()}
        network.load_state_dict(mixed)
        losses.append([_loss(_scores(network, train, part), part) for part in (train, val)])
    barriers = [
        max(loss - (1 - share) * way[0] - share * way[-1] for share, loss in zip(shares, way, strict=True))
        for way in zip(*losses, strict=True)
    ]
    return {"barrier": barriers[0], "val_barrier": barriers[1], "line": [pair[0] for pair in losses]}


@torch.no_grad()
def _scores(network: nn.Module, train: Any, part: Any) -> Tensor:
    """What a network says with statistics of the training images."""
    reestimate_norm(network, network, [batch[0] for batch in train])
    network.eval()
    return torch.cat([network(images) for images, _ in part])


def _loss(scores: Tensor, part: Any) -> float:
    return float(F.cross_entropy(scores, torch.cat([labels for _, labels in part])))


def write(path: Path, folder: Path) -> None:
    """Write `why.csv`, `why.md` and `why.png`."""
    runs = read(path)
    table = pd.DataFrame(
        [
            {"arm": r["arm"], "seed": r["seed"], **{k: v for k, v in end.items() if k != "line"}}
            for r in runs
            for end in r["ends"]
        ]
    )
    table.to_csv(folder / "why.csv", index=False)
    lines = []
    for (arm, generation), rows in table.groupby(["arm", "generation"], sort=False):
        cells = [str(arm), str(generation), str(len(rows))]
        for column in COLUMNS:
            values = rows[column] * (100 if column in ("agreement", "val_acc", "slim_acc") else 1)
            digits = 1 if column in ("agreement", "val_acc", "slim_acc") else 4 if column.startswith("size") else 3
            spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
            cells.append("-" if values.isna().any() else f"{values.mean():.{digits}f}{spread}")
        lines.append(cells)
    hours = sum(run["seconds"] for run in runs) / 3600
    parts = [
        "# Why: what a redraw does to the network",
        "Written by `python -m benchmarks.why` from [`why.csv`](why.csv); do not edit.",
        INTRO,
        "![Training loss along the straight line between the ends of successive generations](why.png)",
        markdown(["arm", "generation", "seeds", *COLUMNS.values()], lines),
        f"## What it says\n\n{FINDINGS}",
        f"{hours:.1f} hours on one thread of a shared CPU; torch {runs[0]['torch']}, lightning {runs[0]['lightning']}.",
        "```console\npython -m benchmarks.why OUT.jsonl --seeds 3\n```",
    ]
    (folder / "why.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _plot(runs, folder / "why.png")


def _plot(runs: list[dict[str, Any]], path: Path) -> None:
    figure, panels = plt.subplots(1, len(ARMS), figsize=(13, 3), layout="constrained", sharey=True)
    for axes, arm in zip(panels, ARMS, strict=True):
        for r in runs:
            if r["arm"] == arm:
                for end in r["ends"][1:]:
                    at = [end["generation"] - 1 + index / (POINTS - 1) for index in range(POINTS)]
                    axes.plot(at, end["line"], color=f"C{r['seed']}", lw=1)
        axes.set_title(arm, fontsize=10)
        axes.set_xlabel("end of generation")
        axes.set_xticks(range(1, GENERATIONS + 1))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("training loss")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what is left, and write."""
    parser = argparse.ArgumentParser(description="Look at what a redraw does to the network.")
    parser.add_argument("out", type=Path, help="file of the finished runs, a line each; what it has is not repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--collect", action="store_true", help="train nothing, only write what there is")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of CSV, page and plot")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if not options.collect:
        run_missing(options.out, [("why", arm, seed) for seed in range(options.seeds) for arm in ARMS], run)
    write(options.out, options.results)


if __name__ == "__main__":
    main()
