"""What the ranks of the distributed tests run, and what they tell of it."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning_utilities.core import rank_zero
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Subset, TensorDataset

import lightning_ke as ke
from lightning_ke import KnowledgeEvolution
from lightning_ke.naming import named_parameters
from lightning_ke.sharding import gather
from lightning_ke.slim import refresh
from lightning_ke.tasks import MetricLearning
from tests.callback.modules import CLASSES, Classifier, data, make_trainer
from tests.memory import PeakMemory

#: Width of the layers whose memory is measured.
WIDE = 256
#: Steps of an epoch of `Plain` and of its sharded sisters: 24 images in global batches of 8.
STEPS = 3


class Plain(LightningModule):
    """A network without BatchNorm whose layers do not divide evenly; what it logs does not depend on the world."""

    def __init__(self, width: int = 10, dropout: float = 0.0, momentum: float = 0.9) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Flatten(),
            nn.Linear(108, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width, bias=False),
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, CLASSES),
        )
        self.momentum = momentum
        self.example_input_array = torch.zeros(2, 3, 6, 6)
        self.val_acc = torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro")

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.val_acc(logits, y)
        self.log("val_loss", F.cross_entropy(logits, y), on_epoch=True, on_step=False, sync_dist=True)
        self.log("val_acc", self.val_acc, on_epoch=True, on_step=False)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=self.momentum)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.trainer.max_epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Sharded(Plain):
    """The same network, its parameters spread over the ranks as `ModelParallelStrategy` asks for."""

    def configure_model(self) -> None:
        mesh = self.device_mesh
        assert mesh is not None
        if mesh["tensor_parallel"].size() > 1:
            # One sharded by rows and one by columns; what lies between them runs on whole activations.
            layers = {"1": ColwiseParallel(output_layouts=Replicate()), "4": RowwiseParallel(input_layouts=Replicate())}
            parallelize_module(self.model, mesh["tensor_parallel"], layers)
        if mesh["data_parallel"].size() > 1:
            for layer in self.model:
                if isinstance(layer, nn.Linear):
                    fully_shard(layer, mesh=mesh["data_parallel"])
            fully_shard(self.model, mesh=mesh["data_parallel"])


class CountCollectives(TorchDispatchMode):
    """Counts everything that a rank sends to or waits for from another one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does with its local tensors comes back here
        if func.namespace in {"c10d", "_c10d_functional", "c10d_functional"}:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Watched(KnowledgeEvolution):
    """Tells what crosses between ranks while a generation opens."""

    collectives: list[str]

    @property
    def state_key(self) -> str:
        return "KnowledgeEvolution"

    def _begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        before = self.generation
        with CountCollectives() as counter:
            super()._begin_epoch(trainer, pl_module)
        if self.generation > before:
            self.collectives = [*getattr(self, "collectives", []), *counter.seen]


class Snapshots(Callback):
    """Keeps the whole weights after every redraw, and lets the ranks' global generators drift apart."""

    def __init__(self) -> None:
        self.after_redraw: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.after_redraw.append(whole_weights(pl_module))
            torch.rand(1 + trainer.global_rank)


def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter as one tensor, by canonical name."""
    return {name: gather(parameter).detach().clone() for name, parameter in named_parameters(module)}


def loader(count: int, ranks: int, rank: int, seed: int = 0) -> DataLoader[Any]:
    """This rank's part of global batches of 8, in order; Lightning's own sampler shuffles whatever it trains on."""
    return DataLoader(Subset(data(count, seed), range(rank, count, ranks)), batch_size=8 // ranks)


def strategy(kind: str, size: int, timeout: float = 200) -> Any:
    """The strategy of a kind of world; "single" is an ordinary Trainer, "ddp-default" DDP as Lightning sets it up."""
    if kind == "single":
        return "auto"
    if kind.startswith("ddp"):
        # DDP arranges its buckets anew after a process's first step, unless it looks for unused parameters. Where a
        # gradient lies in them decides in which order it is summed over more than two ranks.
        same_buckets = {"find_unused_parameters": kind == "ddp" and size > 2}
        return DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=timeout), **same_buckets)
    data_parallel, full = {"fsdp": size, "tp": 1, "both": size // 2}[kind.removesuffix("-full")], kind.endswith("-full")
    return ModelParallelStrategy(data_parallel, size // data_parallel, save_distributed_checkpoint=not full)


def train(
    folder: Path,
    kind: str,
    size: int,
    options: Mapping[str, Any],
    *,
    epochs: int = 3,
    checkpoint: Path | None = None,
    val_count: int = 16,
    shuffle: bool = False,
    dropout: float = 0.0,
    seed: int = 0,
    more: Sequence[Callback] = (),
    timeout: float = 200,
) -> dict[str, Any]:
    """Train for some generations of one epoch and tell what there is to compare."""
    said = listen()
    seed_everything(seed)
    module = (Plain if kind in {"single", "ddp", "ddp-default"} else Sharded)(dropout=dropout)
    callback = Watched(**{"epochs_per_generation": 1, "seed": 0, **options})
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    snapshots = Snapshots()
    # Number of ranks that see different data, and which of them this is.
    ranks = {"single": 1, "tp": 1, "both": max(size // 2, 1)}.get(kind.removesuffix("-full"), size)
    rank = int(os.environ["RANK"]) * ranks // size
    trainer = make_trainer(
        folder,
        devices=size,
        strategy=strategy(kind, size, timeout),
        max_epochs=epochs,
        callbacks=[callback, saver, snapshots, *more],
        enable_checkpointing=True,
        use_distributed_sampler=shuffle,
    )
    loaders = [loader(24, ranks, rank), loader(val_count, ranks, rank, seed=1)]
    if shuffle:
        loaders = [DataLoader(data(24), 8 // ranks, shuffle=True), DataLoader(data(val_count, 1), 8 // ranks)]
    trainer.fit(module, *loaders, ckpt_path=checkpoint)
    assert callback.mask is not None
    return {
        "mask": {name: member.clone() for name, member in callback.mask.items()},
        "mask bytes": callback.mask.nbytes,
        "after redraw": snapshots.after_redraw,
        "weights": whole_weights(module),
        "history": [{k: v for k, v in record.items() if k != "seconds"} for record in callback.history],
        "collectives": getattr(callback, "collectives", []),
        "said": said,
        "slim": None if callback.mask.structure is None else whole_weights(callback.slim_network(module)),
    }


class _Ear(logging.Handler):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def listen() -> list[str]:
    """What Lightning's and our own messages to the user will be."""
    ear = _Ear()
    for log in (rank_zero.log, logging.getLogger("lightning_ke")):  # Lightning puts one of its own in the first place
        log.addHandler(ear)
    return ear.messages


def train_uneven(folder: Path, size: int, options: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Train, then let Lightning itself validate dense and slim network on images that do not divide by the ranks."""
    seed_everything(0)
    module = Classifier()
    callback = KnowledgeEvolution(**{"epochs_per_generation": 1, "seed": 0, **options})
    trainer = make_trainer(folder, devices=size, strategy=strategy("ddp", size), max_epochs=2, callbacks=[callback])
    val = DataLoader(data(count, 1), batch_size=3)
    trainer.fit(module, DataLoader(data(24), 4, shuffle=True), val)
    slim, record = callback.slim_network(module), callback.history[-1]
    validated = [dict(trainer.validate(network, val, verbose=False)[0]) for network in (module, slim)]
    return {"recorded": [record["dense"], record["fit"]], "validated": validated}


def train_noisy(
    folder: Path, kind: str, size: int, options: Mapping[str, Any], checkpoint: Path | None = None
) -> dict[str, Any]:
    """Train with shuffled data and dropout; a resumed run has another global seed than the one it goes on with."""
    return train(folder, kind, size, options, checkpoint=checkpoint, shuffle=True, dropout=0.2)


def resume(folder: Path, kind: str, size: int, options: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Go on with another run's checkpoint."""
    return train(folder, kind, size, options, checkpoint=checkpoint, seed=9)


def train_adam(folder: Path, kind: str, size: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Train with an optimizer whose second moments are averaged over the fit entries of all ranks."""

    def configure_optimizers(self: LightningModule) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    Plain.configure_optimizers = configure_optimizers  # type: ignore[method-assign]  # this process has no other use
    return train(folder, kind, size, options)


class CutOff(Callback):
    """Takes this process's network away in the third epoch."""

    def __init__(self, device: str) -> None:
        self.device = device

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 1:
            subprocess.run(["ip", "link", "set", self.device, "down"], check=True)


def train_in_namespaces(
    folder: Path, names: Sequence[str], device: str, address: str, timeout: float
) -> tuple[str, list[str]]:
    """Train with each rank in a network namespace of its own, until the second loses its network.

    Returns:
        What ended the run, and what was said.
    """
    rank = int(os.environ["RANK"])
    with Path(f"/var/run/netns/{names[rank]}").open() as namespace:  # os.setns is newer than Python 3.11
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    os.environ.update({"MASTER_ADDR": address, "GLOO_SOCKET_IFNAME": device})
    said = listen()
    try:
        train(
            folder,
            "ddp",
            2,
            {"split": "kels"},
            shuffle=True,
            dropout=0.2,
            more=[CutOff(device)] if rank == 1 else [],
            timeout=timeout,
        )
    except RuntimeError as error:
        return str(error), said
    finally:
        torch.distributed.destroy_process_group()
    return "", said


class Deep(LightningModule):
    """Equal layers, each sharded on its own."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(nn.Linear(WIDE, WIDE, bias=False) for _ in range(layers)))


def peaks(folder: Path, split: str, layers: int) -> dict[str, int | None]:
    """The most bytes that a rank holds beside its shards: drawing the mask, redrawing, bringing a slim network up."""
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    model = Deep(layers).model
    for layer in model:
        fully_shard(layer, mesh=mesh)
    x = torch.zeros(1, WIDE)
    with PeakMemory() as draw:
        mask = ke.draw_mask(model, split, 0.5, example_input=x)
    with PeakMemory() as again:
        ke.redraw(model, mask, generation=2)
    found: dict[str, int | None] = {"draw": draw.peak, "redraw": again.peak, "mask": mask.nbytes, "slim": None}
    if mask.structure is not None:
        slim = ke.extract_slim(model, mask, verify=False)
        found["slim network"] = sum(parameter.nbytes for parameter in slim.parameters())
        with PeakMemory() as scoring:
            refresh(slim, model, mask.structure)
        found["slim"] = scoring.peak
    return found


def count_something() -> tuple[list[str], list[str]]:
    """What the counter sees of a broadcast, and of a shard that is gathered."""
    torch.distributed.init_process_group("gloo")
    layer = nn.Linear(4, 4)
    fully_shard(layer, mesh=init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
    with CountCollectives() as broadcast:
        torch.distributed.broadcast(torch.zeros(1), 0)
    with CountCollectives() as gathered:
        gather(layer.weight)
    return broadcast.seen, gathered.seen


def score_embeddings(folder: Path, embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """What a rank logs of embeddings that the ranks share."""
    task = MetricLearning(nn.Identity(), 2, embeddings.shape[1], loss="triplet")
    trainer = make_trainer(folder, devices=int(os.environ["WORLD_SIZE"]), strategy="ddp")
    [scores] = trainer.validate(task, DataLoader(TensorDataset(embeddings, labels), 2), verbose=False)
    return dict(scores)


def refusals(folder: Path, cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each combination of arguments is refused with, before anything was trained."""
    messages = []
    for arguments in cases:
        callback = KnowledgeEvolution(epochs_per_generation=1, **arguments)
        trainer = make_trainer(folder, strategy=ModelParallelStrategy(1, 1), max_epochs=2, callbacks=[callback])
        try:
            trainer.fit(Sharded(), loader(24, 1, 0), loader(16, 1, 0))
        except ValueError as error:
            messages.append(str(error))
        else:
            messages.append("was not refused")
        assert trainer.global_step == 0
    return messages
