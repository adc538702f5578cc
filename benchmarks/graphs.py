"""Node classification on Cora in generations, beside both controls, over seeds; one line of JSON for each run.

    python -m benchmarks.graphs ROOT OUT.jsonl [--seeds 10] [--kinds GCN GraphSAGE GAT]

ROOT holds Planetoid's files (ind.cora.*). Runs that are in OUT already are not repeated. The weights of the epoch with
the best validation accuracy are tested, once.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.optim import AdamW

from lightning_ke import KnowledgeEvolution
from lightning_ke.data import CoraDataModule
from lightning_ke.tasks import NodeClassification
from lightning_ke.tasks.graphs import graph_network

GENERATIONS, EPOCHS = 5, 40
ARMS = ("long", "kels", "wels", "slim-sized")


class Best(Callback):
    """Keeps what the network says of the test nodes in the epoch that validates best, the dense and the fit one."""

    def __init__(self) -> None:
        self.scores = {"val_acc": 0.0, "ke/fit/val_acc": 0.0}
        self.weights: dict[str, dict[str, torch.Tensor]] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: NodeClassification) -> None:
        for name, best in self.scores.items():
            value = float(trainer.callback_metrics.get(name, 0.0))
            if value > best:
                self.scores[name] = value
                self.weights[name] = {key: tensor.clone() for key, tensor in pl_module.state_dict().items()}


def run(data: CoraDataModule, kind: str, arm: str, seed: int) -> dict[str, object]:
    seed_everything(seed, verbose=False)
    hidden = 32 if arm == "slim-sized" else 64
    heads = 4 if arm == "slim-sized" else 8
    network = graph_network(kind, data.num_classes, data.in_channels, hidden=hidden, heads=heads)
    task = NodeClassification(network, data.num_classes, optimizer=lambda p: AdamW(p, lr=0.01, weight_decay=0.05))
    task.example_input_array = data.example_input
    best = Best()
    callbacks: list[Callback] = [best]
    if arm in ("kels", "wels"):
        callbacks.append(KnowledgeEvolution(arm, rate=0.5, generations=GENERATIONS, seed=seed))
    trainer = Trainer(
        max_epochs=GENERATIONS * EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
    )
    start = time.monotonic()
    trainer.fit(task, data)
    row: dict[str, object] = {"kind": kind, "arm": arm, "seed": seed, "seconds": round(time.monotonic() - start, 1)}
    tester = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    task.load_state_dict(best.weights["val_acc"])
    row |= {"val_acc": best.scores["val_acc"], "test_acc": tester.test(task, data, verbose=False)[0]["test_acc"]}
    if arm == "kels":
        task.load_state_dict(best.weights["ke/fit/val_acc"])
        slim = callbacks[-1].slim_network(task)
        slim_acc = tester.test(slim, data, verbose=False)[0]["test_acc"]
        row |= {"slim_val_acc": best.scores["ke/fit/val_acc"], "slim_test_acc": slim_acc}
    if len(callbacks) > 1:
        row["history"] = [{"dense": r["dense"]["val_acc"], "fit": r["fit"]["val_acc"]} for r in callbacks[-1].history]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=["GCN", "GraphSAGE", "GAT"])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    data = CoraDataModule(arguments.root)
    done = set()
    if arguments.out.exists():
        rows = map(json.loads, arguments.out.read_text(encoding="utf-8").splitlines())
        done = {(row["kind"], row["arm"], row["seed"]) for row in rows}
    for kind in arguments.kinds:
        for seed in range(arguments.seeds):
            for arm in ARMS:
                if (kind, arm, seed) not in done:
                    with arguments.out.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(run(data, kind, arm, seed)) + "\n")


if __name__ == "__main__":
    main()
