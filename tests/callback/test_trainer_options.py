"""Options of the Trainer and kinds of data under which generations begin and end where they should."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader, IterableDataset

import lightning_ke as ke
from lightning_ke import KnowledgeEvolution
from tests.callback.modules import Classifier, data, make_trainer, same, train_loader, val_loader, weights

compat = pytest.mark.compat


def evolve(
    tmp_path: Path,
    *others: Callback,
    loader: Any = None,
    module: Any = None,
    ke_arguments: Any = None,
    ckpt_path: Any = None,
    **kwargs: Any,
) -> tuple[Any, KnowledgeEvolution, Trainer]:
    seed_everything(0)
    callback = KnowledgeEvolution(**{"epochs_per_generation": 2, "seed": 0, **(ke_arguments or {})})
    trainer = make_trainer(tmp_path, **{"max_epochs": 4, **kwargs, "callbacks": [callback, *others]})
    module = Classifier() if module is None else module
    trainer.fit(module, train_loader() if loader is None else loader, val_loader(), ckpt_path=ckpt_path)
    return module, callback, trainer


def steps(callback: KnowledgeEvolution) -> list[int]:
    return [record["steps"] for record in callback.history]


@compat("Trainer options", "accumulate_grad_batches", "works", note="gradients do not cross a boundary")
@compat("Trainer options", "gradient_clip_val", "works")
def test_no_gradient_crosses_a_boundary(tmp_path: Path) -> None:
    """3 batches an epoch, 2 to a step: the last step of a generation has one batch, and the next begins without any."""

    class Watch(Callback):
        left: list[bool] = []
        norms: list[float] = []

        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 0:
                self.left.append(any(p.grad is not None and bool(p.grad.any()) for p in pl_module.parameters()))

        def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            gradients = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                self.norms.append(float(torch.stack(gradients).norm()))

    watch = Watch()
    _, callback, _ = evolve(tmp_path, watch, accumulate_grad_batches=2, gradient_clip_val=0.01)
    assert steps(callback) == [4, 4]
    assert watch.left == [False] * 4
    assert watch.norms
    assert max(watch.norms) <= 0.01 * 1.001


@compat("Trainer options", "max_time", "works", note="a generation that it cuts short is recorded as such")
def test_a_run_that_runs_out_of_time(tmp_path: Path) -> None:
    class Slow(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            time.sleep(0.15)

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = True

    _, callback, trainer = evolve(tmp_path, Slow(), max_epochs=-1, max_time={"seconds": 2})
    assert callback.history[-1]["ended"] in {"max_time", "length"}
    assert sum(steps(callback)) == trainer.global_step
    assert [record["generation"] for record in callback.history] == list(range(1, callback.generation + 1))
    long = {"epochs_per_generation": 100}
    _, callback, _ = evolve(tmp_path, Slow(), ke_arguments=long, max_epochs=-1, max_time={"seconds": 1})
    assert [record["ended"] for record in callback.history] == ["max_time"]
    _, callback, _ = evolve(tmp_path, Stop(), Timer({"hours": 1}), ke_arguments=long, max_epochs=-1)
    assert [record["ended"] for record in callback.history] == ["stopped"]


@compat("Trainer options", "limit_train_batches, limit_val_batches", "works")
@pytest.mark.parametrize(("limit", "of_a_generation"), [(2, 4), (0.34, 2)])
def test_epochs_that_are_cut_short_count_as_epochs(tmp_path: Path, limit: Any, of_a_generation: int) -> None:
    _, callback, _ = evolve(tmp_path, limit_train_batches=limit, limit_val_batches=1)
    assert steps(callback) == [of_a_generation] * 2
    assert all(record["fit"] for record in callback.history)


@compat("Trainer options", "limit_val_batches=0", "works", note="a record without scores")
def test_without_validation_there_are_records_without_scores(tmp_path: Path) -> None:
    _, callback, _ = evolve(tmp_path, limit_val_batches=0)
    assert [(record["steps"], record["dense"], record["fit"]) for record in callback.history] == [(6, {}, {})] * 2


@compat("Trainer options", "val_check_interval", "works", note="a record holds the scores of the last validation")
@pytest.mark.parametrize("options", [{"val_check_interval": 0.34}, {"val_check_interval": 2}], ids=str)
def test_several_validations_in_an_epoch(tmp_path: Path, options: dict[str, Any]) -> None:
    seen: list[dict[str, float]] = []

    class Keep(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            metrics = trainer.callback_metrics
            seen.append({name: float(metrics[f"ke/fit/{name}"]) for name in ("val_loss", "val_acc")})

    _, callback, _ = evolve(tmp_path, Keep(), **options)
    assert steps(callback) == [6, 6]
    assert callback.history[-1]["fit"] == seen[-1]
    assert len(seen) == (12 if options["val_check_interval"] == 0.34 else 4)


@compat("Trainer options", "check_val_every_n_epoch", "works", note="a record says in which epoch it was scored")
def test_validations_that_do_not_divide_the_generation(tmp_path: Path) -> None:
    _, callback, _ = evolve(tmp_path, max_epochs=8, check_val_every_n_epoch=3)
    # Validated in the epochs 2, 5: the generations of the epochs 0-1 and 6-7 hold none of their own.
    assert [record["scored_epoch"] for record in callback.history] == [None, 2, 5, None]


@pytest.mark.parametrize(("interval", "scored"), [(4, [2, 5]), (5, [1, 4])], ids=str)
def test_the_last_validation_of_a_generation_may_come_before_its_last_epoch(
    tmp_path: Path, interval: int, scored: list[int]
) -> None:
    """Generations have three epochs of three batches; `interval` batches go over the ends of epochs."""
    options = {"max_epochs": 6, "check_val_every_n_epoch": None, "val_check_interval": interval}
    arguments = {"score_fit": "generation", "epochs_per_generation": 3}
    _, callback, _ = evolve(tmp_path, ke_arguments=arguments, **options)
    assert all(record["fit"].keys() == record["dense"].keys() for record in callback.history)
    assert [record["scored_epoch"] for record in callback.history] == scored


needs_times = pytest.mark.skipif(
    "timedelta" not in str(inspect.signature(Trainer).parameters["val_check_interval"]),
    reason="Lightning 2.6 brought intervals of time",
)


@needs_times
@pytest.mark.parametrize("score_fit", ["epoch", "generation"])
def test_validations_that_come_by_the_clock(tmp_path: Path, score_fit: Any) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1)
    options = {"val_check_interval": timedelta(microseconds=1), "enable_checkpointing": True}
    _, callback, _ = evolve(tmp_path, saver, ke_arguments={"score_fit": score_fit}, **options)
    assert all(record["fit"].keys() == record["dense"].keys() for record in callback.history)
    _, resumed, _ = evolve(tmp_path, ckpt_path=tmp_path / "step=3.ckpt", **options)
    assert steps(resumed) == [6, 6]


@compat("Trainer options", "num_sanity_val_steps", "works", note="scores nothing and changes no random number")
def test_a_sanity_check_changes_nothing(tmp_path: Path) -> None:
    plain, without, _ = evolve(tmp_path)
    module, callback, _ = evolve(tmp_path, num_sanity_val_steps=2)
    assert same(weights(plain), weights(module)) == []
    assert [r["fit"] for r in callback.history] == [r["fit"] for r in without.history]


class Stream(IterableDataset[Any]):
    """Samples without a length."""

    def __iter__(self) -> Iterator[Any]:
        yield from iter(data())  # type: ignore[call-overload]


@compat("Modules", "an iterable data set without length", "works", note="resumes bit for bit at epoch ends")
def test_data_without_a_length(tmp_path: Path) -> None:
    def fit(folder: Path, checkpoint: Path | None = None) -> tuple[dict[str, torch.Tensor], KnowledgeEvolution]:
        seed_everything(0 if checkpoint is None else 99)
        callback, module = KnowledgeEvolution(epochs_per_generation=2, seed=0), Classifier()
        saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        trainer = make_trainer(folder, max_epochs=4, callbacks=[callback, saver], enable_checkpointing=True)
        trainer.fit(module, DataLoader(Stream(), batch_size=8), val_loader(), ckpt_path=checkpoint)
        return weights(module), callback

    whole, callback = fit(tmp_path / "whole")
    assert steps(callback) == [6, 6]
    for epoch in (0, 1):
        resumed, _ = fit(tmp_path / f"from-{epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert same(whole, resumed) == []


class Before(Callback):
    """The weights before the first batch after a redraw."""

    after: dict[str, torch.Tensor]

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 2 and batch_idx == 0:
            self.after = weights(pl_module)


@compat("Precision and compilation", "bf16-true", "works", note="values are drawn in float32, then rounded")
def test_values_for_a_network_in_half_precision_are_rounded(tmp_path: Path) -> None:
    seen = Before()
    module, callback, _ = evolve(tmp_path, seen, precision="bf16-true")
    assert callback.mask is not None
    # The same redraw of a network in float32.
    full = Classifier()
    ke.redraw(full, callback.mask, generation=2, seed=0)
    for name in ("model.0.weight", "model.3.weight", "model.9.weight"):
        redrawn = ~callback.mask[name]
        assert module.state_dict()[name].dtype == torch.bfloat16
        assert torch.equal(seen.after[name][redrawn], full.state_dict()[name][redrawn].bfloat16())


@compat("Precision and compilation", "bf16-mixed", "works", note="weights are redrawn in float32")
def test_values_in_mixed_precision_are_those_of_float32(tmp_path: Path) -> None:
    seen = Before()
    _, callback, _ = evolve(tmp_path, seen, precision="bf16-mixed")
    assert callback.mask is not None
    full = Classifier()
    ke.redraw(full, callback.mask, generation=2, seed=0)
    redrawn = ~callback.mask["model.3.weight"]
    assert torch.equal(seen.after["model.3.weight"][redrawn], full.state_dict()["model.3.weight"][redrawn])


@compat(
    "Precision and compilation",
    "16-mixed with a gradient scaler",
    "works",
    note="faked on a CPU in the test; its scale goes over a boundary and into the checkpoint",
)
def test_a_gradient_scaler_faked_on_a_cpu_goes_over_boundaries_and_resumes(tmp_path: Path) -> None:
    def fit(folder: Path, checkpoint: Path | None = None) -> tuple[dict[str, torch.Tensor], Any, float]:
        seed_everything(0 if checkpoint is None else 99)
        callback, module = KnowledgeEvolution(epochs_per_generation=2, seed=0), Classifier()
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        trainer = make_trainer(
            folder, max_epochs=6, callbacks=[callback, saver], enable_checkpointing=True, plugins=[precision]
        )
        trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        return weights(module), callback, float(scaler.get_scale())

    whole, callback, scale = fit(tmp_path / "whole")
    assert scale > 1024, "the scale has grown"
    assert len(callback.history) == 3
    for epoch in (1, 2):
        resumed, _, resumed_scale = fit(tmp_path / f"from-{epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert resumed_scale == scale
        assert same(whole, resumed) == []


class ChannelsLast(Classifier):
    def on_fit_start(self) -> None:
        self.to(memory_format=torch.channels_last)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, torch.Tensor):  # the example input
            return batch.to(memory_format=torch.channels_last)
        return batch[0].to(memory_format=torch.channels_last), batch[1]


@compat("Precision and compilation", "channels_last", "works", note="the memory format survives a redraw")
def test_channels_last_survives_a_redraw(tmp_path: Path) -> None:
    seen = Before()
    module, callback, _ = evolve(tmp_path, seen, module=ChannelsLast())
    weight = module.model[3].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert callback.mask is not None
    full = Classifier()
    ke.redraw(full, callback.mask, generation=2, seed=0)
    redrawn = ~callback.mask["model.3.weight"]
    assert torch.equal(seen.after["model.3.weight"][redrawn], full.state_dict()["model.3.weight"][redrawn])
