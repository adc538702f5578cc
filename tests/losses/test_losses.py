"""The losses beyond torch's: their formulas, their pairs and their teachers, in real trainings."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from lightning_ke import KnowledgeEvolution
from lightning_ke.data import EmbeddedDataModule
from lightning_ke.losses import (
    BornAgain,
    ClassWiseDistillation,
    Distillation,
    InPlaceDistillation,
    PairBatchSampler,
    get_loss,
)
from lightning_ke.losses.base import softened_divergence
from lightning_ke.phases import SlimFirst, Slimmable
from lightning_ke.tasks import Classification


class Labelled(TensorDataset):
    """Numbers and their classes, with the classes where samplers look for them."""

    def __init__(self, count: int = 40) -> None:
        self.labels = torch.arange(count) % 5
        x = torch.randn(count, 6, generator=torch.Generator().manual_seed(1)) + self.labels[:, None]
        super().__init__(x, self.labels)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))


def task(loss: nn.Module | None = None) -> Classification:
    seed_everything(0, verbose=False)
    return Classification(network(), 5, optimizer=lambda p: SGD(p, lr=0.05, momentum=0.9), loss=loss)


def trainer(folder: Path, callbacks: list[Callback], **options: Any) -> Trainer:
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    quiet = {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_epochs": 6}
    return Trainer(default_root_dir=folder, callbacks=callbacks, **{**defaults, **quiet, **options})


def loaders(pairs: bool = False) -> tuple[DataLoader[Any], DataLoader[Any]]:
    data = Labelled()
    if pairs:
        train: DataLoader[Any] = DataLoader(data, batch_sampler=PairBatchSampler(RandomSampler(data), 8))
    else:
        train = DataLoader(data, 8, shuffle=True)
    return train, DataLoader(data, 20)


def test_class_wise_distillation_is_the_published_formula() -> None:
    net, x, labels = nn.Linear(6, 5), torch.randn(8, 6), torch.tensor([0, 1, 2, 3] * 2)
    got = ClassWiseDistillation(temperature=4, weight=3)(net, x, labels)
    ours, theirs = net(x[:4]), net(x[4:]).detach()
    p, q = torch.softmax(theirs / 4, 1), torch.softmax(ours / 4, 1)
    divergence = (p * (p / q).log()).sum(1).mean() * 16
    torch.testing.assert_close(got, nn.functional.cross_entropy(ours, labels[:4]) + 3 * divergence)


def test_partners_are_taught_by_no_gradient() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    ClassWiseDistillation()(nn.Linear(6, 5), x, torch.tensor([0, 1, 0, 1])).backward()
    assert x.grad is not None
    assert x.grad[:2].abs().sum() > 0
    assert x.grad[2:].abs().sum() == 0


def test_batches_without_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected a training batch to hold as many partners"):
        ClassWiseDistillation()(network(), torch.randn(4, 6), torch.tensor([0, 1, 2, 3]))


def test_a_pair_batch_holds_each_example_once_an_epoch_and_a_partner_of_its_class() -> None:
    data = Labelled(30)
    sampler = PairBatchSampler(RandomSampler(data), 8)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 4
    examples = [position for batch in batches for position in batch[: len(batch) // 2]]
    partners = [position for batch in batches for position in batch[len(batch) // 2 :]]
    assert sorted(examples) == list(range(30))
    assert torch.equal(data.labels[examples], data.labels[partners])
    assert examples != partners
    assert partners != [position for batch in sampler for position in batch[len(batch) // 2 :]]


def test_labels_that_are_nowhere_are_asked_for() -> None:
    with pytest.raises(ValueError, match="`labels` or `targets`"):
        PairBatchSampler(RandomSampler([1, 2]), 2)


def test_an_image_data_module_brings_pairs_when_the_loss_needs_them(tmp_path: Path) -> None:
    class Sizes(Callback):
        seen: list[int] = []

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.seen.append(len(batch[1]))

    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 10))
    sizes = Sizes()
    module = Classification(net, 10, loss=ClassWiseDistillation())
    trainer(tmp_path, [sizes], max_epochs=1, limit_train_batches=2, limit_val_batches=1).fit(
        module, EmbeddedDataModule(batch_size=50)
    )
    assert sizes.seen == [100, 100]


@pytest.mark.parametrize(
    "build",
    [ClassWiseDistillation, BornAgain, lambda: BornAgain(teacher="ema", decay=0.5)],
    ids=["cs-kd", "ban", "ema"],
)
def test_a_run_resumed_in_any_generation_is_the_whole_one(tmp_path: Path, build: Any) -> None:
    def fit(name: str, checkpoint: Path | None = None) -> tuple[Classification, KnowledgeEvolution]:
        module = task(build())
        train, val = loaders(pairs=module.loss.needs_pairs)
        saver = ModelCheckpoint(tmp_path / name, filename="{epoch}", save_top_k=-1)
        evolution = KnowledgeEvolution("wels", epochs_per_generation=2, seed=0)
        if checkpoint is not None:
            torch.manual_seed(99)
        trainer(tmp_path, [evolution, saver]).fit(module, train, val, ckpt_path=checkpoint)
        return module, evolution

    whole, evolution = fit("whole")
    assert len(evolution.history) == 3
    for epoch in (1, 2):  # the end of a generation, and the middle of the next
        again, resumed = fit(f"again{epoch}", tmp_path / "whole" / f"epoch={epoch}.ckpt")
        assert [record["fit"] for record in resumed.history] == [record["fit"] for record in evolution.history]
        for name, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name


class Watch(Callback):
    """Keeps the network as each generation left it, and what its teacher is in the next."""

    def __init__(self) -> None:
        self.left: dict[str, Tensor] = {}
        self.compared = 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.callbacks[0].generation > 1:
            teacher = pl_module.loss.remembered()["teacher"]
            assert all(torch.equal(value, self.left[name]) for name, value in teacher.items())
            self.compared += 1
        if trainer.current_epoch % 2 == 1:
            self.left = {name: value.clone() for name, value in pl_module.backbone.state_dict().items()}


def test_the_teacher_is_the_network_that_the_last_generation_left(tmp_path: Path) -> None:
    module, watch = task(BornAgain()), Watch()
    evolution = KnowledgeEvolution("wels", epochs_per_generation=2, seed=0)
    fitting = trainer(tmp_path, [evolution, watch], enable_checkpointing=False)
    fitting.fit(module, *loaders())
    assert watch.compared == 4
    names = {name for name, _ in module.named_parameters()}
    assert names == {f"backbone.{name}" for name, _ in network().named_parameters()}
    held = {id(p) for group in fitting.optimizers[0].param_groups for p in group["params"]}
    teacher = module.loss._networks["teacher"]
    assert not held & {id(p) for p in teacher.parameters()}
    assert evolution.mask is not None
    assert set(evolution.mask) == names


def test_born_again_mixes_labels_and_teacher() -> None:
    loss, net, teacher = BornAgain(weight=0.25, temperature=2), nn.Linear(6, 5), nn.Linear(6, 5)
    x, labels = torch.randn(8, 6), torch.arange(8) % 5
    alone = loss(net, x, labels)
    torch.testing.assert_close(alone, nn.functional.cross_entropy(net(x), labels))
    loss.on_generation_end(teacher)
    p, q = torch.softmax(teacher(x) / 2, 1), torch.softmax(net(x) / 2, 1)
    torch.testing.assert_close(loss(net, x, labels), 0.75 * alone + 0.25 * 4 * (p * (p / q).log()).sum(1).mean())


def test_distillation_mixes_labels_and_a_teacher_that_may_be_larger() -> None:
    net, teacher = nn.Linear(6, 5), network()
    loss = Distillation(teacher, weight=0.25, temperature=2)
    x, labels = torch.randn(8, 6), torch.arange(8) % 5
    p, q = torch.softmax(teacher.eval()(x) / 2, 1), torch.softmax(net(x) / 2, 1)
    mixed = 0.75 * nn.functional.cross_entropy(net(x), labels) + 0.25 * 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss(net, x, labels), mixed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_teacher_has_the_precision_of_its_inputs(dtype: torch.dtype) -> None:
    """Lightning converts the network of a run in another precision, and its inputs, but no teacher."""
    net, teacher = nn.Linear(6, 5), nn.Linear(6, 5)
    x, labels = torch.randn(8, 6), torch.arange(8) % 5
    again = BornAgain(weight=1.0)
    again.on_generation_end(teacher)
    for loss in (Distillation(teacher, weight=1.0, temperature=1.0), again):
        expected = loss(net, x, labels)
        found = loss(copy.deepcopy(net).to(dtype), x.to(dtype), labels)
        assert found.dtype is dtype
        torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.01)


def test_the_divergence_is_a_mean_over_places_as_the_cross_entropy_is() -> None:
    scores, taught = torch.randn(4, 5), torch.randn(4, 5)
    alone = softened_divergence(scores, taught, 2.0)
    expected = nn.functional.kl_div((scores / 2).log_softmax(1), (taught / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(alone, 4 * expected)
    several = softened_divergence(scores.unsqueeze(2).expand(4, 5, 7), taught.unsqueeze(2).expand(4, 5, 7), 2.0)
    torch.testing.assert_close(several, alone)


def test_the_average_follows_optimizer_steps_not_batches(tmp_path: Path) -> None:
    """With gradients of two batches in a step, and one step an epoch, only that step counts."""
    seen: list[int] = []

    class Counting(BornAgain):
        def after_step(self, network: nn.Module) -> None:
            seen.append(module.trainer.global_step)
            super().after_step(network)

    module = task(Counting(teacher="ema"))
    fitting = trainer(tmp_path, [], enable_checkpointing=False, accumulate_grad_batches=2)
    fitting.fit(module, *loaders())
    assert seen == list(range(1, fitting.global_step + 1))


class Losses(Callback):
    """Keeps the mean loss of each epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(float(trainer.callback_metrics["train_loss"]))


def test_the_slim_network_learns_from_the_dense_one_about_the_same_batch(tmp_path: Path) -> None:
    """What the phase minimises is recomputed from both networks, with no step in between (a learning rate of 0)."""
    module, losses = task(InPlaceDistillation(weight=0.75, temperature=2)), Losses()
    module.optimizer = lambda p: SGD(p, lr=0.0)
    phase, data = Slimmable(begin=0.5), Labelled(8)
    evolution = KnowledgeEvolution(generations=1, seed=0, phases=[phase], example_input=data[0][0][None])
    batch = DataLoader(data, 8)
    trainer(tmp_path, [evolution, losses], max_epochs=2).fit(module, batch, batch)
    module.train()
    dense, slim = (net.backbone(data.tensors[0]) for net in (module, evolution.slim_network(module).train()))
    p, q = torch.softmax(dense / 2, 1), torch.softmax(slim / 2, 1)
    labels = nn.functional.cross_entropy(dense, data.labels), nn.functional.cross_entropy(slim, data.labels)
    taught = 0.25 * labels[1] + 0.75 * 4 * (p * (p / q).log()).sum(1).mean()
    assert losses.seen == pytest.approx([float(labels[0]), float((labels[0] + taught) / 2)], rel=1e-5)


def test_in_place_distillation_without_its_phase_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    evolution = KnowledgeEvolution(generations=1, phases=[SlimFirst()], example_input=torch.zeros(1, 6))
    for callbacks in ([], [evolution]):
        module = task(InPlaceDistillation())
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(ValueError, match="with phase 'slimmable' for InPlaceDistillation"):
            trainer(tmp_path, callbacks, max_epochs=2).fit(module, *loaders())
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_slim_network_whose_dense_one_has_not_seen_the_batch_is_refused(tmp_path: Path) -> None:
    phases = [SlimFirst(end=0.5), Slimmable(begin=0.5)]
    evolution = KnowledgeEvolution(generations=1, phases=phases, example_input=torch.zeros(1, 6))
    with pytest.raises(ValueError, match="goes with phase 'slimmable'"):
        trainer(tmp_path, [evolution], max_epochs=2).fit(task(InPlaceDistillation()), *loaders())


def test_a_given_teacher_is_no_part_of_the_module_and_stays_as_it_was(tmp_path: Path) -> None:
    teacher = network()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    module = task(Distillation(teacher))
    assert not [name for name in module.state_dict() if "teacher" in name]
    evolution = KnowledgeEvolution("wels", epochs_per_generation=2, seed=0)
    trainer(tmp_path, [evolution], enable_checkpointing=False).fit(module, *loaders())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    taught = module.loss._teacher[0]
    assert all(torch.equal(value, before[name]) for name, value in taught.state_dict().items())


def test_a_teacher_of_other_classes_is_refused() -> None:
    """One of a single output would be spread over all of them."""
    for outputs in (1, 7):
        with pytest.raises(ValueError, match=rf"of shape \(4, 5\), but it gives \(4, {outputs}\)"):
            Distillation(nn.Linear(6, outputs))(nn.Linear(6, 5), torch.randn(4, 6), torch.arange(4))


def test_a_new_run_has_no_teacher_and_one_that_goes_on_keeps_its_own(tmp_path: Path) -> None:
    class Taught(Callback):
        def __init__(self) -> None:
            self.seen: list[bool] = []

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.seen.append("teacher" in pl_module.loss.remembered())
            trainer.should_stop = trainer.current_epoch == 2  # in the middle of the second generation

    module = task(BornAgain())
    for _ in range(2):
        taught, evolution = Taught(), KnowledgeEvolution("wels", epochs_per_generation=2, seed=0)
        fitting = trainer(tmp_path, [evolution, taught], max_epochs=4, enable_checkpointing=False)
        fitting.fit(module, *loaders())
        assert taught.seen == [False, False, True]
    fitting.fit(module, *loaders())
    assert taught.seen == [False, False, True, True]


def test_a_checkpoint_of_a_step_holds_the_average_that_has_seen_it(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=2)
    module = task(BornAgain(teacher="ema", decay=0.0))  # the average is the network
    trainer(tmp_path, [saver], max_epochs=1).fit(module, *loaders())
    content = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    average = content["lightning_ke_loss"]["average"]
    assert all(torch.equal(value, content["state_dict"][f"backbone.{name}"]) for name, value in average.items())


def test_the_average_follows_the_network_and_becomes_the_teacher() -> None:
    loss, net = BornAgain(teacher="ema", decay=0.75), nn.Linear(1, 1, bias=False)
    for value in (0.0, 1.0, 1.0):
        nn.init.constant_(net.weight, value)
        loss.after_step(net)
    loss.on_generation_end(net)
    assert float(loss.remembered()["teacher"]["weight"]) == 0.4375
    assert "average" not in loss.remembered()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClassWiseDistillation(temperature=0), "`temperature` to be a number greater than 0"),
        (lambda: ClassWiseDistillation(weight=-1), "`weight` to be a number of at least 0"),
        (lambda: ClassWiseDistillation(weight="3"), "`weight` to be a number of at least 0, but got '3'"),
        (lambda: BornAgain(temperature="4"), "`temperature` to be a number greater than 0, but got '4'"),
        (lambda: BornAgain(weight="half"), r"`weight` to be in \[0, 1\], but got 'half'"),
        (lambda: Distillation(nn.Linear(1, 1), temperature=float("inf")), "`temperature` to be a number greater than"),
        (lambda: BornAgain(weight=1.5), r"`weight` to be in \[0, 1\]"),
        (lambda: Distillation(nn.Linear(1, 1), weight=-0.1), r"`weight` to be in \[0, 1\]"),
        (lambda: Distillation(nn.Linear(1, 1), temperature=-1), "`temperature` to be a number greater than 0"),
        (lambda: BornAgain(teacher="fit"), "`teacher` to be one of 'dense', 'ema'"),
    ],
)
def test_what_is_out_of_range_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
    with pytest.raises(TypeError, match="`loss` to be a module"):
        get_loss("cross_entropy")  # type: ignore[arg-type]


class Seen(Callback):
    """Writes the examples that this rank was trained on, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.examples: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        x, labels = batch
        half = len(labels) // 2
        assert torch.equal(labels[:half], labels[half:])
        self.examples += x[:half, 0].tolist()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        torch.save(self.examples, self.folder / f"rank{trainer.global_rank}.pt")


@pytest.fixture
def environment() -> Iterator[None]:
    """Lightning's launcher leaves the addresses of its processes in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_pairs_under_ddp_are_each_rank_s_own_examples(tmp_path: Path) -> None:
    train, val = loaders(pairs=True)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    module = Classification(net, 5, loss=ClassWiseDistillation())
    evolution = KnowledgeEvolution("wels", epochs_per_generation=1, seed=0)
    options = {"devices": 2, "strategy": "ddp_spawn", "max_epochs": 2, "enable_checkpointing": False}
    trainer(tmp_path, [evolution, Seen(tmp_path)], **options).fit(module, train, val)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 40
    everything = {round(float(value), 5) for value in Labelled().tensors[0][:, 0]}
    for epoch in (slice(0, 20), slice(20, 40)):
        assert {round(value, 5) for value in first[epoch] + second[epoch]} == everything
