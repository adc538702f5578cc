"""Node classification on Cora in generations, beside both controls, over seeds.

    python -m benchmarks.graphs ROOT OUT.jsonl [--seeds 10] [--groups GCN GraphSAGE GAT] [--collect]

ROOT holds Planetoid's files (ind.cora.*). OUT gets one line for each run; runs that it has already are not repeated, so
stop it whenever you like. Then (with --collect at once) CSV, page and plot are written to `docs/results/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.optim import AdamW

from benchmarks import paired
from benchmarks.training import fit
from lightning_ke import KnowledgeEvolution, measure_cost
from lightning_ke.data import CoraDataModule
from lightning_ke.tasks import NodeClassification
from lightning_ke.tasks.graphs import graph_network

GENERATIONS, EPOCHS = 5, 40
ARMS = ("long", "kels", "slim-sized")
KINDS = ("GCN", "GraphSAGE", "GAT")

STUDY = paired.Study(
    name="cora",
    title="Graph networks on Cora: generations beside plain training of the same length",
    baseline="long",
    same_size="slim-sized",
    metrics={"test_acc": ("test accuracy", "%")},
    intro="""We know of no publication of Knowledge Evolution on graph networks; here it is with both controls.

Cora with its public split (140 nodes are trained on, 500 validate, 1,000 test); two layers, 64 hidden channels (GAT: 8
heads of 8), dropout 0.5, AdamW with learning rate 0.01 and weight decay 0.05 for every arm (none was tuned), full-batch
steps, 200 epochs in all.

- **long**: the dense long baseline, 200 epochs, no redraw.
- **kels**: Knowledge Evolution, KELS, rate 0.5, 5 generations of 40 epochs; dense, and its slim network.
- **slim-sized**: a network with half the hidden channels (GAT: half the heads), trained from scratch for 200 epochs.

Each network is validated in every second epoch; the weights that validated best are tested, once.""",
    command="python -m benchmarks.graphs ROOT OUT.jsonl --seeds 10",
    findings="""No network's dense accuracy gains or loses by generations: every interval holds 0. The slim networks, at
half of the weights, come to the dense ones' accuracy with GraphSAGE and GAT and stay a point below with GCN; none can
be told from a network of its size that was trained from scratch for as long.""",
)


class Best(Callback):
    """Keeps the weights of the epochs that validate best, of the dense network and of the fit hypothesis."""

    def __init__(self) -> None:
        self.scores = {"val_acc": 0.0, "ke/fit/val_acc": 0.0}
        self.weights: dict[str, dict[str, torch.Tensor]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: NodeClassification) -> None:
        for name, best in self.scores.items():
            value = float(trainer.callback_metrics.get(name, 0.0))
            if value > best:
                self.scores[name] = value
                self.weights[name] = {key: tensor.clone() for key, tensor in pl_module.state_dict().items()}


def run(data: CoraDataModule, kind: str, arm: str, seed: int) -> dict[str, Any]:
    """Train one arm and test it.

    Args:
        data: Cora.
        kind: The network.
        arm: One of `ARMS`.
        seed: Seed of weights, dropout, mask and redraws.
    """
    seed_everything(seed, verbose=False)
    size = {"hidden": 32, "heads": 4} if arm == "slim-sized" else {"hidden": 64, "heads": 8}
    network = graph_network(kind, data.num_classes, data.in_channels, **size)
    task = NodeClassification(network, data.num_classes, optimizer=lambda p: AdamW(p, lr=0.01, weight_decay=0.05))
    task.example_input_array = data.example_input
    best, evolution = Best(), KnowledgeEvolution(rate=0.5, generations=GENERATIONS, seed=seed)
    callbacks = [best, evolution] if arm == "kels" else [best]
    trainer, seconds = fit(task, data, GENERATIONS * EPOCHS, callbacks, validate_every=2)
    row: dict[str, Any] = {"group": kind, "arm": arm, "seed": seed, "seconds": seconds}

    def test(network: NodeClassification, name: str) -> dict[str, float]:
        (scores,) = trainer.test(network, data, verbose=False)
        cost = measure_cost(network.backbone, data.example_input)
        return {
            "val_acc": best.scores[name],
            "test_acc": scores["test_acc"],
            "operations": cost.ops,
            "parameters": cost.params,
        }

    task.load_state_dict(best.weights["val_acc"])
    row["networks"] = {"dense": test(task, "val_acc")}
    if arm == "kels":
        task.load_state_dict(best.weights["ke/fit/val_acc"])
        row["networks"]["slim"] = test(evolution.slim_network(task), "ke/fit/val_acc")
        row["history"] = [[record["dense"]["val_acc"], record["fit"]["val_acc"]] for record in evolution.history]
    return row


def prepare(root: Path) -> paired.Run:
    """Read Cora once.

    Args:
        root: Folder of Planetoid's files.
    """
    data = CoraDataModule(root)
    return lambda kind, arm, seed: run(data, kind, arm, seed)


if __name__ == "__main__":
    paired.command_line(STUDY, KINDS, ARMS, 10, prepare)
