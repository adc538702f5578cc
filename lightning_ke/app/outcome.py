"""The end of a run: the weights that validation chose are tested once, printed and written."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_ke.app.build import plain
from lightning_ke.app.files import explained, replacing, write_text
from lightning_ke.app.quiet import without_advice
from lightning_ke.app.run_folder import RunFolder
from lightning_ke.app.slim_file import save_slim_file
from lightning_ke.callback import KnowledgeEvolution
from lightning_ke.cost import Cost, measure_cost
from lightning_ke.history import plot_history
from lightning_ke.masks import Mask, load_mask
from lightning_ke.recalibration import recalibrate_norm
from lightning_ke.report import NetworkRow, generation_table, network_table
from lightning_ke.slim import SlimError, extract_slim

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Outcome:
    """What a run has come to.

    Args:
        config: The composed configuration.
        folder: The run's folder.
        data: Whose test images are used.
        task: The trained module.
        evolution: The callback that trained it.
        best: What chose the weights, "dense" and (with a slim network) "fit".
        operations: What the training steps have cost (`Meter`).
        device: What it was trained on.
    """

    config: DictConfig
    folder: RunFolder
    data: LightningDataModule
    task: LightningModule
    evolution: KnowledgeEvolution
    best: dict[str, ModelCheckpoint]
    operations: float
    device: torch.device

    def report(self) -> None:
        """Test the chosen networks once; print and write tables, plot, results and slim network."""
        config, folder, task, evolution = self.config, self.folder.path, self.task, self.evolution
        earlier = self.folder.keep_results()
        load_best(task, self.best["dense"])
        networks = [self._row("dense", "dense", task)]
        dense = networks[0].cost
        mask = self._chosen_mask()
        slim = self._slim_network(mask)
        slim_cost: Cost | None = None
        written = {"configuration": folder / "config.yaml", "checkpoints": folder / "checkpoints"}
        if mask is not None and slim is not None:
            networks.append(self._row("slim", "fit", slim))
            # What it costs is true of all generations if they keep the same channels.
            slim_cost = None if plain(config.generations.schedule or {}).get("rate") else networks[-1].cost
            written["slim network"] = self._save(slim, mask)
        generations = generation_table(evolution.history, config.monitor, dense, slim_cost)
        tested = network_table(networks)
        written["tables"] = folder / "tables.md"
        write_text(written["tables"], f"{generations.markdown()}\n\n{tested.markdown()}\n")
        written["plot"] = folder / "history.png"
        with replacing(written["plot"]) as temporary:
            plot_history(evolution.history, config.monitor, path=temporary)
        # Last of all: who finds results finds everything.
        written["results"] = folder / "results.json"
        write_text(written["results"], json.dumps(self._results(networks, mask), indent=1))
        print(f"\n{generations}\n\nChosen on validation ({config.monitor}), tested once:\n{tested}\n")
        width = max(map(len, written))
        for name, path in written.items():
            print(f"{name:<{width}}  {path}")
        if earlier:
            print(f"What {folder} held of the shorter run is kept: {', '.join(earlier)}")

    def _row(self, name: str, kind: str, network: LightningModule) -> NetworkRow:
        score = self.best[kind].best_model_score if kind in self.best else None
        scores = {} if score is None else {self.config.monitor: float(score)}
        cost = measure_cost(backbone(network), example_input(self.task, self.data))
        return NetworkRow(name, scores | test(self.config, network, self.data), cost)

    @property
    def _choice(self) -> ModelCheckpoint:
        """What chose the weights of the slim network."""
        return self.best.get("fit", self.best["dense"])

    def _chosen_mask(self) -> Mask | None:
        """The mask under which the slim network's weights were chosen; a schedule of rates makes later ones others."""
        path = self._choice.best_model_path
        return load_mask(path) if path and self.evolution.mask is not None else self.evolution.mask

    def _slim_network(self, mask: Mask | None) -> LightningModule | None:
        """The slim network of the weights that were chosen for it."""
        if mask is None or mask.structure is None:
            return None
        load_best(self.task, self._choice)
        try:
            slim = extract_slim(self.task, mask)
        except SlimError as error:  # the training is not lost for that
            print(f"\nThere is no slim network: {error}")
            return None
        assert isinstance(slim, LightningModule)
        if self.config.generations.fit_norm == "reestimate":
            recalibrate_norm(slim, self.data.train_dataloader(), self.task)
        return slim

    def _save(self, slim: LightningModule, mask: Mask) -> Path:
        path = self.folder.path / "slim.safetensors"
        part = None if backbone(slim) is slim else "backbone"
        with explained(path):
            save_slim_file(path, slim, mask, part, self.task.hparams.get("config"))
        return path

    def _results(self, networks: list[NetworkRow], mask: Mask | None) -> dict[str, Any]:
        return {
            "history": self.evolution.history,
            "networks": {
                network.name: {**network.scores, "operations": network.cost.ops, "parameters": network.cost.params}
                for network in networks
            },
            "monitor": self.config.monitor,
            "mode": self.config.mode,
            "seconds": self.folder.seconds,
            "training_operations": round(self.operations),
            "environment": environment(self.device),
            "mask": [] if mask is None else shares(mask),
        }


def environment(device: torch.device) -> dict[str, Any]:
    """What a run was done with.

    Args:
        device: What it was trained on.
    """
    try:
        own = version("lightning-ke")
    except PackageNotFoundError:  # run from the source tree
        own = "source"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "lightning_ke": own,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or device.type,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def shares(mask: Mask) -> list[dict[str, Any]]:
    """Of each parameter: its name, its shape and the share of it that is fit.

    Args:
        mask: What is fit.
    """
    entries = ((name, mask.entry(name)) for name in mask)
    return [
        {"name": name, "shape": list(entry.shape), "fit": entry.count() / max(math.prod(entry.shape), 1)}
        for name, entry in entries
    ]


def backbone(task: LightningModule) -> torch.nn.Module:
    """The network inside a task, or somebody's module itself.

    Args:
        task: The module.
    """
    network = getattr(task, "backbone", task)
    return network if isinstance(network, torch.nn.Module) else task


def example_input(task: LightningModule, data: LightningDataModule) -> Any:
    """What the network is run on to count its operations, in the precision that it was trained in.

    Args:
        task: Whose `example_input_array` is taken.
        data: Whose first validation batch is taken if there is none: of pairs, the first.
    """
    example = task.example_input_array
    if example is None:
        batch = next(iter(data.val_dataloader()))
        example = batch[0] if isinstance(batch, (list, tuple)) else batch

    def converted(tensor: Tensor) -> Tensor:
        return tensor.to(task.dtype) if tensor.is_floating_point() else tensor

    return apply_to_collection(example, Tensor, converted)


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
            precision=config.trainer.precision,
            limit_test_batches=config.trainer.limit_test_batches,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # One dictionary for each loader; with several of them the names say which.
        return {name: value for scores in trainer.test(task, data, verbose=False) for name, value in scores.items()}
