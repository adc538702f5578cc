"""The end of a run: the weights that validation chose are tested once, printed and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ke.app.quiet import without_advice
from lightning_ke.app.slim_file import save_slim_file
from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.cost import Cost, measure_cost
from lightning_ke.history import plot_history
from lightning_ke.report import NetworkRow, generation_table, network_table
from lightning_ke.slim import SlimError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def report(
    config: DictConfig,
    folder: Path,
    data: LightningDataModule,
    task: LightningModule,
    evolution: KnowledgeEvolution,
    best: dict[str, ModelCheckpoint],
) -> None:
    """Test the chosen networks once; print and write tables, plot and slim network.

    Args:
        config: The composed configuration.
        folder: Where everything is written.
        data: Whose test images are used.
        task: The trained module.
        evolution: The callback that trained it.
        best: What `checkpoints` gave.
    """
    example = example_input(task, data)
    written = {"configuration": folder / "config.yaml", "checkpoints": folder / "checkpoints"}

    def row(name: str, kind: str, network: LightningModule) -> NetworkRow:
        score = best[kind].best_model_score if kind in best else None
        scores = {} if score is None else {config.monitor: float(score)}
        return NetworkRow(name, scores | test(config, network, data), measure_cost(backbone(network), example))

    load_best(task, best["dense"])
    networks = [row("dense", "dense", task)]
    slim_cost: Cost | None = None
    structure = None if evolution.mask is None else evolution.mask.structure
    if structure is not None:
        load_best(task, best.get("fit", best["dense"]))
        recalibrate = data.train_dataloader() if config.generations.fit_norm == "reestimate" else None
        try:
            slim = evolution.slim_network(task, recalibrate)
        except SlimError as error:  # the training is not lost for that
            print(f"\nThere is no slim network: {error}")
        else:
            networks.append(row("slim", "fit", slim))
            slim_cost = networks[-1].cost
            written["slim network"] = folder / "slim.pt"
            prefix = "" if backbone(slim) is slim else "backbone."
            save_slim_file(written["slim network"], backbone(slim), structure, task.hparams.get("config"), prefix)
    generations = generation_table(evolution.history, config.monitor, networks[0].cost, slim_cost)
    tested = network_table(networks)
    written["tables"] = folder / "tables.md"
    written["tables"].write_text(f"{generations.markdown()}\n\n{tested.markdown()}\n", encoding="utf-8")
    written["results"] = folder / "results.json"
    results = {
        "history": evolution.history,
        "networks": {
            network.name: {**network.scores, "operations": network.cost.ops, "parameters": network.cost.params}
            for network in networks
        },
    }
    written["results"].write_text(json.dumps(results, indent=1), encoding="utf-8")
    written["plot"] = folder / "history.png"
    plot_history(evolution.history, config.monitor, path=written["plot"])
    print(f"\n{generations}\n\nChosen on validation ({config.monitor}), tested once:\n{tested}\n")
    width = max(map(len, written))
    for name, path in written.items():
        print(f"{name:<{width}}  {path}")


def backbone(task: LightningModule) -> torch.nn.Module:
    """The network inside a task, or somebody's module itself.

    Args:
        task: The module.
    """
    network = getattr(task, "backbone", task)
    return network if isinstance(network, torch.nn.Module) else task


def example_input(task: LightningModule, data: LightningDataModule) -> Any:
    """What the network is run on to count its operations.

    Args:
        task: Whose `example_input_array` is taken.
        data: Whose first validation batch is taken if there is none: of pairs, the first.
    """
    if task.example_input_array is not None:
        return task.example_input_array
    batch = next(iter(data.val_dataloader()))
    return batch[0] if isinstance(batch, (list, tuple)) else batch


def load_best(task: LightningModule, checkpoint: ModelCheckpoint) -> None:
    """Give a module the weights that were chosen on validation; without validation it keeps its last ones.

    Args:
        task: The module.
        checkpoint: What chose.
    """
    if checkpoint.best_model_path:
        content = torch.load(checkpoint.best_model_path, map_location=task.device, weights_only=True)
        task.load_state_dict(content["state_dict"])


def test(config: DictConfig, task: LightningModule, data: LightningDataModule) -> dict[str, float]:
    """The test scores of a network.

    Args:
        config: The composed configuration.
        task: The network.
        data: Whose test images are used.
    """
    with without_advice():
        trainer = Trainer(
            accelerator=config.trainer.accelerator,
            devices=1,
            limit_test_batches=config.trainer.limit_test_batches,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        scores = trainer.test(task, data, verbose=False)[0]
    return {name: value for name, value in scores.items() if not name.endswith("loss")}
