"""What happens to optimizers and schedules when a generation opens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lightning_ke import KnowledgeEvolution
from lightning_ke.phases import Sparse
from tests.callback.modules import Classifier, data, make_trainer, same, train_loader, val_loader, weights


class Rates(Callback):
    """The learning rate of each step (3 steps an epoch)."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.optimizers: list[int] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.optimizers.append(id(optimizer))


class WithSchedule(Classifier):
    """A classifier with the schedule that a test wants."""

    def __init__(self, schedule: Any, interval: str = "epoch", **config: Any) -> None:
        super().__init__()
        self.schedule, self.interval, self.config = schedule, interval, config

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = self.schedule(optimizer, self.trainer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.interval, **self.config},
        }


def rates(
    tmp_path: Path, module: LightningModule, epochs: int, generations: int | None, **arguments: Any
) -> list[float]:
    seed_everything(0)
    witness = Rates()
    callbacks: list[Callback] = [witness]
    if generations is not None:
        callbacks.append(KnowledgeEvolution(generations=generations, seed=0, **arguments))
    trainer = make_trainer(tmp_path, max_epochs=epochs, callbacks=callbacks)
    trainer.fit(module, train_loader(), val_loader())
    return witness.rates


def cosine(optimizer: Any, trainer: Trainer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=trainer.max_epochs)


def one_cycle(optimizer: Any, trainer: Trainer) -> Any:
    steps = int(trainer.estimated_stepping_batches)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)


def warmup_then_cosine(optimizer: Any, trainer: Trainer) -> Any:
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=1)
    rest = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=trainer.max_epochs - 1)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, rest], milestones=[1])


@pytest.mark.parametrize(
    ("schedule", "interval"), [(cosine, "epoch"), (one_cycle, "step"), (warmup_then_cosine, "epoch")]
)
def test_every_generation_has_the_schedule_of_a_run_of_its_own(tmp_path: Path, schedule: Any, interval: str) -> None:
    alone = rates(tmp_path, WithSchedule(schedule, interval), 4, None)
    evolved = rates(tmp_path, WithSchedule(schedule, interval), 12, 3)
    assert len(set(alone)) > 2
    assert evolved == pytest.approx(alone * 3)


def test_one_schedule_may_run_over_all_generations(tmp_path: Path) -> None:
    alone = rates(tmp_path, WithSchedule(cosine), 6, None)
    evolved = rates(tmp_path, WithSchedule(cosine), 6, 3, lr_schedule="continue")
    assert evolved == pytest.approx(alone)


def test_one_cycle_continues_with_its_momentum(tmp_path: Path) -> None:
    alone = rates(tmp_path, WithSchedule(one_cycle, "step"), 6, None)
    evolved = rates(tmp_path, WithSchedule(one_cycle, "step"), 6, 3, lr_schedule="continue")
    assert evolved == pytest.approx(alone)


def test_reduce_on_plateau_starts_over(tmp_path: Path) -> None:
    def plateau(optimizer: Any, trainer: Trainer) -> Any:
        # "max" on a loss that cannot improve by that much: reduces after each epoch but the first two.
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=1e9)

    evolved = rates(tmp_path, WithSchedule(plateau, monitor="val_loss"), 6, 2)
    per_epoch = evolved[::3]
    assert per_epoch[:3] == pytest.approx(per_epoch[3:])
    assert per_epoch[2] < per_epoch[0]


def test_a_constant_horizon_is_restarted_as_written_with_a_warning(tmp_path: Path) -> None:
    def written(optimizer: Any, trainer: Trainer) -> Any:
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)

    with pytest.warns(UserWarning, match="CosineAnnealingLR is written for 12 epochs, a generation has 4"):
        evolved = rates(tmp_path, WithSchedule(written), 12, 3)
    assert evolved[:12] == pytest.approx(evolved[12:24])
    assert min(evolved) > 0.005


def test_a_data_set_of_unknown_length_may_have_a_schedule_by_steps(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            yield from data()

    def written(optimizer: Any, trainer: Trainer) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=7)

    witness = Rates()
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[witness, KnowledgeEvolution(generations=2, seed=0)])
    trainer.fit(WithSchedule(written, "step"), DataLoader(Stream(), 8))
    assert witness.rates[:6] == pytest.approx(witness.rates[6:])


def test_the_trainers_length_is_its_own_again(tmp_path: Path) -> None:
    class Reader(Classifier):
        lengths: list[int | None] = []

        def on_train_epoch_start(self) -> None:
            self.lengths.append(self.trainer.max_epochs)

    module = Reader()
    rates(tmp_path, module, 6, 3)
    assert module.lengths == [6] * 6
    assert "configure_optimizers" not in vars(module)


def optimizer_states(tmp_path: Path, mode: Any) -> tuple[list[float], KnowledgeEvolution]:
    """Mean absolute momentum of fit and of reset entries of a weight right after a redraw, before any step."""
    found: list[float] = []
    callback = KnowledgeEvolution(generations=2, seed=0, optimizer=mode)

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.current_epoch == 2 and batch_idx == 0:
                weight = pl_module.model[3].weight
                momentum = trainer.optimizers[0].state[weight].get("momentum_buffer", torch.zeros_like(weight))
                assert callback.mask is not None
                fit = callback.mask["model.3.weight"]
                found.extend([float(momentum[fit].abs().mean()), float(momentum[~fit].abs().mean())])

    seed_everything(0)
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback, Look()])
    trainer.fit(Classifier(), train_loader(), val_loader())
    return found, callback


def test_what_each_mode_carries_over(tmp_path: Path) -> None:
    new, _ = optimizer_states(tmp_path, "new")
    keep, _ = optimizer_states(tmp_path, "keep")
    clear, _ = optimizer_states(tmp_path, "clear")
    assert new == [0.0, 0.0]
    assert keep[0] > 0
    assert keep[1] > 0
    assert clear == [keep[0], 0.0]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ({"optimizer": "clear"}, "Use `optimizer='new'`"),
        ({"phases": [Sparse(0.5, end=0.5)]}, "leave phase 'sparse' out"),
    ],
    ids=["clear", "phase"],
)
def test_state_that_cannot_be_cleared_is_refused_behind_the_first_step(
    tmp_path: Path, arguments: dict[str, Any], advice: str
) -> None:
    class Rows(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.Adafactor(self.parameters())

    callback = KnowledgeEvolution(generations=2, seed=0, **arguments)
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback])
    with pytest.raises(ValueError, match=rf"of Adafactor is none that is known to be\. .*{advice}"):
        trainer.fit(Rows(), train_loader(), val_loader())
    assert trainer.global_step == 1


def test_old_optimizer_and_schedule_may_both_go_on(tmp_path: Path) -> None:
    """The control that changes nothing: no redraw, same optimizer, same schedule, so plain training."""
    seed_everything(0)
    plain = Classifier()
    make_trainer(tmp_path, max_epochs=4).fit(plain, train_loader(), val_loader())
    seed_everything(0)
    module = Classifier()
    callback = KnowledgeEvolution(generations=2, reset="none", optimizer="keep", lr_schedule="continue", seed=0)
    make_trainer(tmp_path, max_epochs=4, callbacks=[callback]).fit(module, train_loader(), val_loader())
    assert same(weights(plain), weights(module)) == []


class Manual(Classifier):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        first, second = self.optimizers()
        loss = F.cross_entropy(self(batch[0]), batch[1])
        for optimizer in (first, second):
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in (first, second):
            optimizer.step()
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()

    def configure_optimizers(self) -> Any:
        first = torch.optim.SGD(self.model[:6].parameters(), lr=0.05, momentum=0.9)
        second = torch.optim.Adam(self.model[6:].parameters(), lr=0.01)
        return [first, second], [torch.optim.lr_scheduler.CosineAnnealingLR(first, T_max=self.trainer.max_epochs)]


@pytest.mark.compat("Modules", "manual optimization, several optimizers", "works")
def test_manual_optimization_with_two_optimizers(tmp_path: Path) -> None:
    alone = rates(tmp_path, Manual(), 2, None)
    evolved = rates(tmp_path, Manual(), 4, 2)
    assert evolved == pytest.approx(alone * 2)


class Adversarial(Classifier):
    """Its `forward` is the generator alone."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.example_input_array = None
        self.judge = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for optimizer, sign in zip(self.optimizers(), (1, -1), strict=True):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(sign * self.judge(self(batch[0])).mean())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.model, self.judge)]


@pytest.mark.compat("Modules", "a discriminator as `target`, which `forward` does not run", "works")
@pytest.mark.parametrize("sanity", [0, 1])
def test_a_target_that_the_forward_does_not_run_is_listened_to(tmp_path: Path, sanity: int) -> None:
    callback = KnowledgeEvolution(generations=2, target="judge", seed=0)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback], num_sanity_val_steps=sanity)
    trainer.fit(Adversarial(), train_loader(), val_loader())
    assert callback.mask is not None
    assert callback.mask["judge.0.weight"].sum(1).tolist() == [4, 4, 4, 4, 0, 0, 0, 0]
    assert bool(callback.mask["model.0.weight"].all())


def test_a_target_that_the_example_input_does_not_reach_is_refused_and_told_how(tmp_path: Path) -> None:
    module = Adversarial()
    module.example_input_array = torch.zeros(2, 3, 6, 6)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2, target="judge")])
    with pytest.raises(ValueError, match=r"`target` 'judge'.*without one \(nor `example_input_array`\)"):
        trainer.fit(module, train_loader(), val_loader())


@pytest.mark.compat("Callbacks", "LearningRateMonitor", "works", note="before or after ours in the list")
@pytest.mark.parametrize("first", [True, False], ids=["monitor first", "monitor last"])
def test_the_learning_rate_monitor_sees_the_new_generation(tmp_path: Path, first: bool) -> None:
    logged: list[float] = []

    class Log(LearningRateMonitor):
        def on_train_epoch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            super().on_train_epoch_start(trainer, *args, **kwargs)
            logged.append(trainer.callback_metrics["lr-SGD"].item())

    from lightning.pytorch.loggers import CSVLogger

    callback, monitor = KnowledgeEvolution(generations=2, seed=0), Log("epoch")
    seed_everything(0)
    trainer = make_trainer(
        tmp_path,
        max_epochs=6,
        callbacks=[monitor, callback] if first else [callback, monitor],
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
    )
    trainer.fit(Classifier(), train_loader(), val_loader())
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert logged == pytest.approx(expected * 2)


class Changing(Classifier):
    """Trains its two parts by optimizers of their own in the first epoch, and together from then on."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizers: Any = self.optimizers()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        first = self.trainer.current_epoch == 0
        parts = [self.model[:3], self.model[3:]] if first and self.what == "optimizers" else [self.model]
        optimizers = [torch.optim.SGD(part.parameters(), lr=0.05) for part in parts]
        if first and self.what == "schedules":
            return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 1)]
        return optimizers


@pytest.mark.parametrize("what", ["optimizers", "schedules"])
def test_optimizers_may_change_if_nothing_is_carried_over(tmp_path: Path, what: str) -> None:
    callback = KnowledgeEvolution(generations=2, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback])
    trainer.fit(Changing(what), train_loader(), val_loader())
    assert len(trainer.optimizers) == 1
    trainer = make_trainer(
        tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2, lr_schedule="continue")]
    )
    with pytest.raises(ValueError, match=rf"to build the same \d {what} at every call, .* `lr_schedule='restart'`"):
        trainer.fit(Changing(what), train_loader(), val_loader())
