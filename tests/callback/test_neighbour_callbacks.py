"""Other callbacks in the same Trainer, before and after ours in the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.tuner import Tuner

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader, weights

compat = pytest.mark.compat
either_order = pytest.mark.parametrize(
    "first", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["before ours", "after ours"]
)


def evolve(
    tmp_path: Path, neighbour: Callback | None, first: bool, module: LightningModule | None = None, **kwargs: Any
) -> tuple[Any, KnowledgeEvolution]:
    seed_everything(0)
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0)
    others = [] if neighbour is None else [neighbour]
    loader = kwargs.pop("loader", train_loader())
    options = {"max_epochs": 4, **kwargs, "callbacks": [*others, callback] if first else [callback, *others]}
    module = Classifier() if module is None else module
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(module, loader, val_loader())
    return module, callback


@compat(
    "Callbacks", "ModelCheckpoint", "works", note="also with `monitor='ke/fit/NAME'`; before or after ours in the list"
)
@either_order
def test_a_checkpoint_of_the_best_fit_hypothesis(tmp_path: Path, first: bool) -> None:
    saver = ModelCheckpoint(tmp_path / "best", monitor="ke/fit/val_loss", filename="{epoch}", save_top_k=1)
    _, callback = evolve(tmp_path, saver, first, enable_checkpointing=True)
    assert saver.best_model_score is not None
    state = torch.load(saver.best_model_path, weights_only=True)
    record = state["callbacks"]["KnowledgeEvolution"]["scores"]
    assert record["fit"]["val_loss"] == pytest.approx(float(saver.best_model_score))
    assert record["epoch"] == state["epoch"]
    assert len(callback.history) == 2


@compat("Callbacks", "EarlyStopping", "works", note="its counters start over with each generation")
@either_order
def test_early_stopping_watches_the_fit_hypothesis(tmp_path: Path, first: bool) -> None:
    # Never better than infinitely good: stops after the second validation of a generation.
    stopper = EarlyStopping("ke/fit/val_loss", patience=1, mode="max", min_delta=1e9)
    _, callback = evolve(tmp_path, stopper, first)
    assert [(record["epochs"], record["ended"]) for record in callback.history] == [(2, "early_stopping")]


@compat("Callbacks", "TQDMProgressBar", "works", note="shows the generation")
@compat("Callbacks", "RichProgressBar", "works", note="shows the generation")
@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_progress_bars_show_the_generation(
    tmp_path: Path, bar: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown: list[dict[str, Any]] = []

    class Listening(bar):  # type: ignore[misc]
        def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            shown.append(super().get_metrics(*args, **kwargs))
            return shown[-1]

    evolve(tmp_path, Listening(), True, enable_progress_bar=True)
    assert {float(metrics["generation"]) for metrics in shown if "generation" in metrics} == {1.0, 2.0}
    assert capsys.readouterr().out + capsys.readouterr().err


@compat(
    "Callbacks", "GradientAccumulationScheduler", "works", note="the step count restarts with the epoch, not before"
)
@either_order
def test_accumulation_that_changes_with_the_epochs(tmp_path: Path, first: bool) -> None:
    _, callback = evolve(tmp_path, GradientAccumulationScheduler({0: 1, 2: 3}), first)
    assert [record["steps"] for record in callback.history] == [6, 2]


class OneCycle(Classifier):
    """Asks how many steps a generation has."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: list[int] = []

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        self.totals.append(int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=self.totals[-1])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(
    folder: Path, neighbour: Callback, module: Any, first: bool, checkpoint: Path | None = None, **arguments: Any
) -> Any:
    """Three generations of two epochs."""
    seed_everything(0 if checkpoint is None else 99)
    ours = KnowledgeEvolution(epochs_per_generation=2, seed=0, **arguments)
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    callbacks = [neighbour, ours, saver] if first else [ours, neighbour, saver]
    trainer = make_trainer(folder, max_epochs=6, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
    return module


@either_order
def test_a_schedule_is_built_for_the_accumulation_of_its_generation(tmp_path: Path, first: bool) -> None:
    def scheduler() -> Callback:
        return GradientAccumulationScheduler({0: 1, 2: 2, 4: 3})

    whole = train(tmp_path / "whole", scheduler(), OneCycle(), first)
    assert whole.totals == [6, 4, 2]
    again = train(tmp_path / "again", scheduler(), OneCycle(), first, tmp_path / "whole" / "epoch=3.ckpt")
    assert same(weights(whole), weights(again)) == []


class Unfreeze(BaseFinetuning):
    """Trains the first convolution from the third epoch on."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.model[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 2:
            self.unfreeze_and_add_param_group(pl_module.model[0], optimizer)


class Trainable(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.lr)


class HeadFirst(Classifier):
    """As Lightning's documentation shows it: what is unfrozen is in no optimizer of the module's own."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.model[3:].parameters(), lr=self.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)]


class Groups(Callback):
    """How many parameters each group holds when an epoch has begun."""

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.sizes.append([len(group["params"]) for group in trainer.optimizers[0].param_groups])


UNFROZEN = "what it keeps frozen is not redrawn, what it has unfrozen is trained on; resume bit for bit"


class UnfreezeSoon(Unfreeze):
    """In the second epoch, that is within a generation."""

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.model[0], optimizer, lr=0.01)


@compat("Callbacks", "BaseFinetuning", "works", note=UNFROZEN)
@pytest.mark.parametrize("module", [Trainable, HeadFirst])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"optimizer": "clear"}, {"optimizer": "keep", "lr_schedule": "continue"}, {"lr_schedule": "continue"}],
)
def test_what_was_unfrozen_is_trained_in_later_generations(
    tmp_path: Path, module: Any, arguments: dict[str, Any]
) -> None:
    groups = Groups()
    seed_everything(0)
    callbacks = [KnowledgeEvolution(epochs_per_generation=2, seed=0, **arguments), UnfreezeSoon(), groups]
    make_trainer(tmp_path, max_epochs=6, callbacks=callbacks).fit(module(), train_loader(), val_loader())
    first = groups.sizes[0][0]
    assert groups.sizes == [[first], *[[first, 1]] * 5]


@compat("Callbacks", "BaseFinetuning", "works", note=UNFROZEN)
@pytest.mark.parametrize("module", [Trainable, HeadFirst])
@either_order
def test_what_was_unfrozen_is_trained_on_by_a_resumed_run(tmp_path: Path, module: Any, first: bool) -> None:
    whole = train(tmp_path / "whole", UnfreezeSoon(), module(), first)
    for epoch in (0, 1, 2, 3):
        again = train(
            tmp_path / f"from {epoch}", UnfreezeSoon(), module(), first, tmp_path / "whole" / f"epoch={epoch}.ckpt"
        )
        assert same(weights(whole), weights(again)) == [], f"from the end of epoch {epoch}"


class FirstConvolution(Callback):
    """The first convolution at the end of each epoch."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.seen.append(pl_module.model[0].weight.detach().clone())


@compat("Callbacks", "BaseFinetuning", "works", note=UNFROZEN)
@either_order
def test_frozen_layers_are_left_alone_until_they_are_trained(tmp_path: Path, first: bool) -> None:
    seed_everything(0)
    callback, witness, module = KnowledgeEvolution(epochs_per_generation=2, seed=0), FirstConvolution(), Trainable()
    initial = module.model[0].weight.detach().clone()
    others = [Unfreeze(), witness]
    callbacks = [*others, callback] if first else [callback, *others]
    make_trainer(tmp_path, max_epochs=6, callbacks=callbacks).fit(module, train_loader(), val_loader())
    assert all(torch.equal(initial, seen) for seen in witness.seen[:2])
    assert not torch.equal(initial, witness.seen[2]), "trained from the third epoch on"
    assert len(callback.history) == 3


averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="new in lightning 2.6")


def average() -> Any:
    return averaging.EMAWeightAveraging(decay=0.5)


AVERAGES = "never redrawn, begins anew with each generation; resume bit for bit"


@compat("Callbacks", "WeightAveraging, EMAWeightAveraging", "works", note=AVERAGES)
@either_order
def test_averaged_weights_resume_exactly(tmp_path: Path, first: bool) -> None:
    def fit(folder: Path, checkpoint: Path | None = None) -> tuple[dict[str, torch.Tensor], Any]:
        seed_everything(0 if checkpoint is None else 99)
        ours, ema, module = KnowledgeEvolution(epochs_per_generation=2, seed=0), average(), Classifier()
        saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        callbacks = [ema, ours, saver] if first else [ours, ema, saver]
        trainer = make_trainer(folder, max_epochs=4, callbacks=callbacks, enable_checkpointing=True)
        trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
        return weights(module), ours

    whole, callback = fit(tmp_path / "whole")
    for epoch in (0, 1):
        resumed, again = fit(tmp_path / f"from-{epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert same(whole, resumed) == []
        assert again.history[-1]["fit"] == callback.history[-1]["fit"]


@either_order
def test_an_average_begins_anew_with_each_generation(tmp_path: Path, first: bool) -> None:
    """Behind the first step of a generation it is the network of that step alone."""

    class Watched(averaging.EMAWeightAveraging):  # type: ignore[misc]
        alike: list[bool] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, pl_module, *args)
            mean = dict(self._average_model.module.named_parameters())
            self.alike.append(all(torch.equal(value, mean[name]) for name, value in pl_module.named_parameters()))

    callback, ema = KnowledgeEvolution(epochs_per_generation=2, seed=0), Watched(decay=0.5)
    ema.alike = []
    trainer = make_trainer(tmp_path, max_epochs=6, callbacks=[callback, ema] if first else [ema, callback])
    trainer.fit(Classifier(), train_loader(), val_loader())
    generation = len(ema.alike) // 3
    assert ema.alike == ([True] + [False] * (generation - 1)) * 3


class Averaged(Classifier):
    """Holds an average of its own network, moved after every step, as self-supervised modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.average = torch.optim.swa_utils.AveragedModel(self.model)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update_parameters(self.model)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=self.lr)


@compat("Modules", "an average (EMA) of the network inside the module", "works", note="never redrawn")
def test_an_average_inside_the_module_is_not_redrawn(tmp_path: Path) -> None:
    class Around(Callback):
        before: dict[str, torch.Tensor]
        after: dict[str, torch.Tensor]

        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.before = weights(pl_module)

        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 2 and batch_idx == 0:
                self.after = weights(pl_module)

    around = Around()
    evolve(tmp_path, around, False, Averaged())
    changed = same(around.before, around.after)
    assert "model.3.weight" in changed
    assert [name for name in changed if name.startswith("average")] == []


@compat("Callbacks", "lr_find, LearningRateFinder", "works", note="the search redraws nothing")
def test_a_learning_rate_is_found_and_then_used(tmp_path: Path) -> None:
    seed_everything(0)
    callback, module = KnowledgeEvolution(epochs_per_generation=2, seed=0), Classifier()
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback], enable_checkpointing=True)
    before = weights(module)
    finder = Tuner(trainer).lr_find(module, train_loader(1), val_loader(), num_training=40)
    assert finder is not None
    assert same(before, weights(module)) == []
    trainer.fit(module, train_loader(1), val_loader())
    assert [(record["generation"], record["epochs"], record["steps"]) for record in callback.history] == [
        (1, 2, 48),
        (2, 2, 48),
    ]
    assert callback.history[0]["lr"]["first"] == pytest.approx(module.lr)
    assert module.lr != 0.05


@compat("Callbacks", "lr_find, LearningRateFinder", "works", note="the search redraws nothing")
@either_order
def test_the_finder_as_a_callback(tmp_path: Path, first: bool) -> None:
    finder = LearningRateFinder(num_training_steps=40)
    module, callback = evolve(tmp_path, finder, first, loader=train_loader(1), enable_checkpointing=True)
    assert [(record["generation"], record["steps"]) for record in callback.history] == [(1, 48), (2, 48)]
    assert module.lr != 0.05


class Sized(Classifier):
    """Brings its own loader, whose batch size can be searched for."""

    batch_size = 2

    def train_dataloader(self) -> Any:
        return train_loader(self.batch_size)


@compat("Callbacks", "scale_batch_size, BatchSizeFinder", "refused")
@pytest.mark.parametrize("as_callback", [True, False])
def test_a_batch_size_is_searched_without_generations(tmp_path: Path, as_callback: bool, record_property: Any) -> None:
    neighbours: list[Callback] = [BatchSizeFinder(max_trials=2)] if as_callback else []
    callbacks = [*neighbours, KnowledgeEvolution(generations=2, seed=0)]
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=callbacks)
    search = trainer.fit if as_callback else Tuner(trainer).scale_batch_size
    with pytest.raises(ValueError, match="does not work beside BatchSizeFinder") as caught:
        search(Sized())  # type: ignore[operator]
    record_property("refusal", str(caught.value))
