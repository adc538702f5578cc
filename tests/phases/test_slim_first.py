"""Slim first, in real trainings: what is trained when, and that nothing changes when the width does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from lightning_ke import KnowledgeEvolution
from lightning_ke.phases import Scene, SlimFirst
from lightning_ke.splits import draw_mask


class Module(LightningModule):
    def __init__(self, decay: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
        self.decay = decay
        self.widths: list[int] = []
        self.example_input_array = torch.zeros(1, 2, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.widths.append(self.net[0].out_channels)
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=self.decay)


class Watch(Callback):
    """The dense and the fit score of every epoch, and the weights with which it begins and ends."""

    def __init__(self) -> None:
        self.scores: list[tuple[float, float]] = []
        self.weights: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self._start = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            metrics = trainer.callback_metrics
            self.scores.append((float(metrics["val_loss"]), float(metrics["ke/fit/val_loss"])))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append((self._start, {name: p.detach().clone() for name, p in pl_module.named_parameters()}))


def fit(
    folder: Path, module: Module, checkpoint: Path | None = None, sanity: int = 2, **options: Any
) -> tuple[Watch, Any]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 2, 6, 6, generator=generator)
    data = TensorDataset(x, (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0).long())
    watch = Watch()
    evolution = KnowledgeEvolution(
        **({"rate": 0.5, "epochs_per_generation": 4, "seed": 0, "phases": [SlimFirst(end=0.5)]} | options)
    )
    trainer = Trainer(
        max_epochs=8,
        num_sanity_val_steps=sanity,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[evolution, watch, ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
    )
    seed_everything(0)
    trainer.fit(module, DataLoader(data, 8, shuffle=True), DataLoader(data, 24), ckpt_path=checkpoint)
    return watch, evolution


def test_each_generation_trains_the_kept_channels_first_and_then_all(tmp_path):
    seed_everything(3)
    module = Module()
    watch, evolution = fit(tmp_path, module)
    assert module.widths == [4] * 6 + [8] * 6 + [4] * 6 + [8] * 6  # three batches an epoch
    assert "training_step" not in vars(module)
    for number, (start, end) in enumerate(watch.weights):
        slim = number in (0, 1, 4, 5)
        for name in ("net.0.weight", "net.3.weight", "net.8.weight"):
            kept = evolution.mask[name]
            moved = start[name] != end[name]
            assert moved[kept].any()
            assert bool(moved[~kept].any()) == (not slim)


def test_the_dense_network_computes_what_the_slim_one_has_learned(tmp_path):
    seed_everything(3)
    watch, _ = fit(tmp_path, Module())
    for number, (dense, slim) in enumerate(watch.scores):
        if number in (0, 1, 4, 5):
            assert dense == pytest.approx(slim, rel=1e-5)
    assert all(dense != slim for number, (dense, slim) in enumerate(watch.scores) if number in (2, 3, 6, 7))


def test_reset_weights_stay_as_they_were_drawn_but_for_those_that_lead_to_kept_channels(tmp_path):
    seed_everything(3)
    watch, _ = fit(tmp_path, Module())
    kept = torch.zeros(8, dtype=torch.bool)
    kept[:4] = True
    start, end = watch.weights[4]  # the first epoch of the second generation
    for name in ("net.3.weight", "net.8.weight"):
        rows = torch.ones(3, dtype=torch.bool) if name == "net.8.weight" else kept
        assert not start[name][rows][:, ~kept].any()
    assert (start["net.3.weight"][~kept] != 0).all()
    assert torch.equal(start["net.3.weight"][~kept], end["net.3.weight"][~kept])


@pytest.mark.parametrize("epoch", [0, 4, 5, 6])
def test_a_run_resumed_in_the_phase_is_the_whole_one(tmp_path, epoch):
    seed_everything(3)
    whole = Module(decay=0.01)
    fit(tmp_path / "whole", whole)
    seed_everything(4)
    resumed = Module(decay=0.01)
    fit(tmp_path / "again", resumed, checkpoint=tmp_path / "whole" / f"epoch={epoch}.ckpt")
    assert resumed.widths == whole.widths[3 * (epoch + 1) :]
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_module_whose_training_fails_has_its_own_step_again(tmp_path):
    class Failing(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if len(self.widths) == 4:
                raise RuntimeError("out of luck")
            return super().training_step(batch, batch_idx)

    module = Failing()
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, module)
    assert "training_step" not in vars(module)
    assert module.net[0].out_channels == 8


def test_without_an_example_input_the_first_batch_shows_what_is_kept(tmp_path):
    module = Module()
    module.example_input_array = None
    fit(tmp_path, module, sanity=0)
    assert module.widths == [8] + [4] * 5 + [8] * 6 + [4] * 6 + [8] * 6


def test_a_split_without_a_slim_network_is_refused():
    with pytest.raises(ValueError, match=r"a split that keeps whole channels, such as 'kels'.* but got 'wels'"):
        KnowledgeEvolution(split="wels", rate=0.5, phases=[SlimFirst()])


def test_a_step_that_the_module_was_given_is_its_own_again(tmp_path):
    module, calls = Module(), []
    own = module.training_step

    def given(batch: Any, batch_idx: int) -> Tensor:
        calls.append(module.net[0].out_channels)
        return own(batch, batch_idx)

    module.training_step = given
    fit(tmp_path, module)
    assert calls == [4] * 6 + [8] * 6 + [4] * 6 + [8] * 6
    assert vars(module)["training_step"] is given


def test_reset_channels_of_embeddings_stay_as_they_were_drawn():
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.table, self.head = nn.EmbeddingBag(6, 8), nn.Embedding(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.bag(x) + self.table(x).mean(1))

        training_step = forward

    words = Words()
    mask = draw_mask(words, "kels", example_input=torch.zeros(2, 3, dtype=torch.long))
    with torch.no_grad():
        SlimFirst().enter(Scene(words, (), None, None, generation=1, mask=mask))
    assert bool((words.bag.weight != 0).all() & (words.table.weight != 0).all())
    assert torch.equal(words.head.weight != 0, mask["head.weight"])
