"""What changes from generation to generation, in real trainings; and that a resumed run is the whole one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader

from lightning_ke import KnowledgeEvolution
from lightning_ke.data import EmbeddedDataModule
from lightning_ke.schedule import GenerationSchedule, RateByGeneration
from lightning_ke.splits import Split, Wels
from tests.callback.modules import Classifier, data, make_trainer, train_loader, val_loader


class Data(LightningDataModule):
    batch_size = 12
    strength = 1.0
    side = 0

    def augment(self, strength: float) -> None:
        self.strength = strength

    def resize(self, image_size: int) -> None:
        self.side = image_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(data(), self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(data(), 24)


class Decayed(Classifier):
    """With weight decay, and a cosine over the steps of a generation or none."""

    def __init__(self, schedule: bool = True) -> None:
        super().__init__()
        self.schedule = schedule

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
        if not self.schedule:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


class Watch(Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        group = trainer.optimizers[0].param_groups[0]
        evolution = trainer.callbacks[0]
        self.seen.append(
            {
                "generation": evolution.generation,
                "epoch": trainer.current_epoch,
                "lr": group["lr"],
                "decay": group["weight_decay"],
                "batch": len(batch[1]),
                "strength": trainer.datamodule.strength,
                "side": trainer.datamodule.side,
                "fit": 0.0 if evolution.mask is None else round(evolution.mask.fit_share, 3),
            }
        )


def fit(
    folder: Path,
    schedule: Any,
    checkpoint: Path | None = None,
    module: Any = None,
    limits: Mapping[str, Any] | None = None,
    saving: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, Watch, KnowledgeEvolution]:
    seed_everything(0)
    module, watch = module or Decayed(), Watch()
    evolution = KnowledgeEvolution("wels", epochs_per_generation=2, seed=0, schedule=schedule, **options)
    trainer = make_trainer(
        folder,
        max_epochs=6,
        enable_checkpointing=True,
        callbacks=[evolution, watch, ModelCheckpoint(folder, save_top_k=-1, **(saving or {"filename": "{epoch}"}))],
        **(limits or {}),
    )
    if checkpoint is not None:
        torch.manual_seed(99)
    trainer.fit(module, datamodule=Data(), ckpt_path=checkpoint)
    return module, watch, evolution


EVERYTHING = {
    "lr": [1.0, 0.5, 2.0],
    "weight_decay": [1.0, 0.0, 3.0],
    "batch_size": [12, 6, 8],
    "augmentation": [1.0, 0.5],
    "image_size": [6, 9],
    "rate": [0.8, 0.5],
}


def test_each_generation_has_its_own_values(tmp_path: Path) -> None:
    _, watch, evolution = fit(tmp_path, GenerationSchedule(**EVERYTHING))
    of_generation = {g: [seen for seen in watch.seen if seen["generation"] == g] for g in (1, 2, 3)}
    assert [len(seen) for seen in of_generation.values()] == [2 * 2, 2 * 4, 2 * 3]
    assert [{seen["batch"] for seen in of_generation[g]} for g in (1, 2, 3)] == [{12}, {6}, {8}]
    assert [{seen["strength"] for seen in of_generation[g]} for g in (1, 2, 3)] == [{1.0}, {0.5}, {0.5}]
    assert [{seen["side"] for seen in of_generation[g]} for g in (1, 2, 3)] == [{6}, {9}, {9}]
    assert [of_generation[g][0]["lr"] for g in (1, 2, 3)] == pytest.approx([0.05, 0.025, 0.1])
    assert [of_generation[g][0]["decay"] for g in (1, 2, 3)] == pytest.approx([0.01, 0.0, 0.03])
    # The cosine falls over the generation's own number of steps, whose last one is just above 0.
    for g, steps in ((1, 4), (2, 8), (3, 6)):
        rates = [seen["lr"] for seen in of_generation[g]]
        wanted = [rates[0] * (1 + torch.tensor(step / steps * torch.pi).cos().item()) / 2 for step in range(steps)]
        assert rates == pytest.approx(wanted, rel=1e-4)
    shares = [of_generation[g][-1]["fit"] for g in (1, 2, 3)]
    assert shares[0] > shares[1] == shares[2]
    assert [record["lr"]["first"] for record in evolution.history] == pytest.approx([0.05, 0.025, 0.1])


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("optimizer", ["new", "keep"])
def test_a_resumed_run_is_the_whole_one(tmp_path: Path, epoch: int, optimizer: Any) -> None:
    whole, seen, _ = fit(tmp_path / "whole", EVERYTHING, optimizer=optimizer)
    checkpoint = tmp_path / "whole" / f"epoch={epoch}.ckpt"
    again, resumed, _ = fit(tmp_path / "again", EVERYTHING, checkpoint, optimizer=optimizer)
    assert resumed.seen == [one for one in seen.seen if one["epoch"] > epoch]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("limits", [{}, {"limit_val_batches": 0}], ids=["validated", "not validated"])
def test_a_generations_last_batch_is_followed_by_the_next_ones_batches(tmp_path: Path, limits: dict[str, Any]) -> None:
    """Saved behind the last of 4 steps, before the generation was closed; the next one has other batches and crops."""
    saving = {"every_n_train_steps": 4, "filename": "{step}"}
    whole, seen, _ = fit(tmp_path / "whole", EVERYTHING, limits=limits, saving=saving)
    checkpoint = tmp_path / "whole" / "step=4.ckpt"
    again, resumed, _ = fit(tmp_path / "again", EVERYTHING, checkpoint, limits=limits, saving=saving)
    assert resumed.seen == [one for one in seen.seen if one["generation"] > 1]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_factors_do_not_pile_up_on_a_schedule_that_goes_on(tmp_path: Path) -> None:
    for optimizer in ("new", "keep"):
        _, watch, _ = fit(
            tmp_path / optimizer,
            {"lr": [1.0, 0.5, 0.5]},
            module=Decayed(schedule=False),
            optimizer=optimizer,
            lr_schedule="continue",
        )
        assert {seen["generation"]: seen["lr"] for seen in watch.seen} == {1: 0.05, 2: 0.025, 3: 0.025}


class Unfreeze(BaseFinetuning):
    """Trains the first convolution from the second epoch on, at a rate of its own."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.model[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.model[0], optimizer, lr=0.02)


class HeadFirst(Classifier):
    def configure_optimizers(self) -> Any:
        return SGD(self.model[3:].parameters(), lr=0.05, weight_decay=0.01)


@pytest.mark.parametrize("factors", [[1.0, 0.5, 0.25], [0.5, 1.0, 2.0]], ids=str)
@pytest.mark.parametrize("lr_schedule", ["restart", "continue"])
def test_a_group_that_is_added_later_changes_as_the_others_do(
    tmp_path: Path, factors: list[float], lr_schedule: Any
) -> None:
    class Rates(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            groups = trainer.optimizers[0].param_groups
            seen[evolution.generation] = [(group["lr"], group["weight_decay"]) for group in groups]

    seen: dict[int, Any] = {}
    schedule = {"lr": factors, "weight_decay": factors}
    evolution = KnowledgeEvolution(epochs_per_generation=2, seed=0, schedule=schedule, lr_schedule=lr_schedule)
    trainer = make_trainer(tmp_path, max_epochs=6, callbacks=[evolution, Unfreeze(), Rates()])
    trainer.fit(HeadFirst(), train_loader(), val_loader())
    for generation, factor in enumerate(factors, start=1):
        since = factor / factors[0]
        expected = [(0.05 * factor, 0.01 * factor), (0.02 * since, 0.01 * since)]
        assert seen[generation] == [pytest.approx(rates) for rates in expected]


def test_a_generation_that_goes_on_in_a_second_fit_keeps_its_factor(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 2

    seed_everything(0)
    module, watch = Decayed(schedule=False), Watch()
    evolution = KnowledgeEvolution(epochs_per_generation=2, seed=0, schedule={"lr": [1.0, 0.5, 0.25]})
    trainer = make_trainer(tmp_path, max_epochs=6, callbacks=[evolution, watch, Stop()])
    trainer.fit(module, datamodule=Data())
    trainer.fit(module, datamodule=Data())
    assert {(seen["generation"], seen["lr"]) for seen in watch.seen} == {(1, 0.05), (2, 0.025), (3, 0.0125)}
    assert [record["epochs"] for record in evolution.history] == [2, 2, 2]


def test_every_schedule_of_torch_s_is_scaled_as_a_whole() -> None:
    def rates(build: Any, factor: float) -> list[float]:
        optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
        scheduler = build(optimizer)
        held = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)])
        GenerationSchedule(lr=[factor]).scale(held, 1)  # type: ignore[arg-type]
        found = []
        for _ in range(8):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    builds: list[Any] = [
        lambda o: lr_scheduler.CyclicLR(o, base_lr=0.1, max_lr=1.0, step_size_up=2),
        lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=8),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=3),
        lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.StepLR(o, 2)], milestones=[2]
        ),
    ]
    for build in builds:
        plain = rates(build, 1.0)
        assert len(set(plain)) > 2
        assert rates(build, 0.25) == pytest.approx([0.25 * rate for rate in plain])


def test_a_schedule_with_rates_of_its_own_is_refused() -> None:
    class Own:
        def __init__(self, optimizer: Any) -> None:
            self.rates = [group["lr"] for group in optimizer.param_groups]

    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    configs = [SimpleNamespace(scheduler=Own(optimizer))]
    held: Any = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=configs)
    with pytest.raises(ValueError, match="because the schedule changes lr, but got a Own"):
        GenerationSchedule(lr=[1.0, 0.5]).scale(held, 1)
    GenerationSchedule(weight_decay=[0.5]).scale(held, 1)


def test_what_a_checkpoint_holds_are_python_s_types() -> None:
    numbers = np.linspace(0.25, 0.5, 2)
    schedule = GenerationSchedule(lr=numbers, weight_decay=numbers, augmentation=numbers, rate=numbers)
    values = [value for listed in schedule.identity().values() for value in listed]
    assert len(values) == 8
    assert {type(value) for value in values} == {float}


def test_a_split_of_one_s_own_with_a_rate_that_cannot_be_replaced_is_refused() -> None:
    class Own(Wels):
        pass

    class Plain(Split):
        name = "plain"
        rate = 0.5

        def draw(self, context: Any) -> Any:
            return Wels(self.rate).draw(context)

    assert RateByGeneration(Own(0.5), [0.5, 0.25]).last_draw == 2
    with pytest.raises(ValueError, match="let a split of your own be a dataclass"):
        RateByGeneration(Plain(), [0.5, 0.25])


def test_images_are_cropped_less_at_a_lower_strength() -> None:
    module = EmbeddedDataModule(crop_scale=(0.2, 1.0))
    module.setup("fit")
    for strength, low, flip in ((0.0, 1.0, False), (0.5, 0.6, True), (1.0, 0.2, True)):
        module.augment(strength)
        crop = module._sets["train"].crop
        assert (crop.scale, crop.flip) == ((pytest.approx(low), 1.0), flip)
    with pytest.raises(ValueError, match=r"strength in \[0, 1\]"):
        module.augment(2.0)


def test_training_images_alone_get_smaller_before_and_after_they_are_read() -> None:
    module = EmbeddedDataModule(image_size=28)
    module.resize(20)
    module.setup("fit")
    sizes = [tuple(next(iter(loader))[0].shape[2:]) for loader in (module.train_dataloader(), module.val_dataloader())]
    assert sizes == [(20, 20), (28, 28)]
    module.resize(14)
    module.augment(0.5)
    assert next(iter(module.train_dataloader()))[0].shape[2:] == (14, 14)
    with pytest.raises(ValueError, match="image size of 1 to 42 px"):
        module.resize(43)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({}, "to change one of lr, weight_decay, batch_size"),
        ({"lr": 0.5}, r"Write \[0\.5\]"),
        ({"lr": [-1.0]}, "`lr` to hold numbers of at least 0"),
        ({"lr": ["a"]}, "`lr` to hold numbers of at least 0"),
        ({"lr": [float("inf")]}, "`lr` to hold numbers of at least 0"),
        ({"batch_size": [0]}, "`batch_size` to hold whole numbers"),
        ({"image_size": [32.5]}, "`image_size` to hold whole numbers"),
        ({"rate": [1.5]}, r"`rate` to be in \(0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_refused(schedule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnowledgeEvolution(schedule=schedule)


def test_a_factor_of_0_is_refused_where_the_next_one_builds_on_it() -> None:
    for name in ("lr", "weight_decay"):
        with pytest.raises(ValueError, match=rf"scale `{name}` by more than 0 .* but got \(0\.0, 1\.0\)"):
            KnowledgeEvolution(schedule={name: [0.0, 1.0]}, lr_schedule="continue")
        KnowledgeEvolution(schedule={name: [0.0, 1.0]})


def test_a_factor_of_0_is_refused_where_groups_are_added_later(tmp_path: Path) -> None:
    evolution = KnowledgeEvolution(generations=2, schedule={"lr": [0.0, 1.0]})
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[evolution, Unfreeze()])
    with pytest.raises(ValueError, match=r"because of a BaseFinetuning, .* in place of 0, or leave it out\."):
        trainer.fit(HeadFirst(), train_loader(), val_loader())


def test_a_last_factor_of_0_holds_for_all_further_generations(tmp_path: Path) -> None:
    module = Decayed(schedule=False)
    _, watch, _ = fit(tmp_path, {"lr": [1.0, 0.0], "weight_decay": [1.0, 0.0]}, module=module, lr_schedule="continue")
    assert {(seen["generation"], seen["lr"], seen["decay"]) for seen in watch.seen} == {
        (1, 0.05, 0.01),
        (2, 0.0, 0.0),
        (3, 0.0, 0.0),
    }


def test_a_split_without_a_rate_and_loaders_that_nobody_can_change_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'layers' has none"):
        KnowledgeEvolution("layers", schedule={"rate": [0.5]})
    trainer = make_trainer(
        tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2, schedule={"batch_size": [8]})]
    )
    with pytest.raises(ValueError, match="a data module with `batch_size`"):
        trainer.fit(Classifier(), DataLoader(data(), 8))
