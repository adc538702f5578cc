"""Phases in real trainings: what they do to weights and gradients, when, and that a resumed run is the whole one."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW
from torch.utils.data import DataLoader, TensorDataset

from lightning_ke import KnowledgeEvolution
from lightning_ke.phases import Ascent, Dropped, Phase, Rescale, Scene, SlimFirst, Sparse
from lightning_ke.splits import BottomUp, Dormant, Overlap


class Module(LightningModule):
    def __init__(self, decay: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        self.decay = decay

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=self.decay)


class Watch(Callback):
    """Weights at the beginning and the end of each epoch, and what was held at zero."""

    def __init__(self) -> None:
        self.start: list[dict[str, Tensor]] = []
        self.end: list[dict[str, Tensor]] = []
        self.held: list[list[str]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.start.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})
            self.held.append(trainer.callbacks[0]._run.phases.held)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})


def fit(
    folder: Path, phases: list[Phase], checkpoint: Path | None = None, module: Module | None = None, **options: Any
) -> tuple[Module, Watch]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 6, generator=generator)
    data = TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
    seed_everything(0)
    module, watch = module or Module(), Watch()
    defaults = {"split": "wels", "epochs_per_generation": 4, "seed": 0, "reset": "none", "score_fit": False}
    evolution = KnowledgeEvolution(**{**defaults, **options}, phases=phases)
    trainer = Trainer(
        max_epochs=8,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[evolution, watch, ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
    )
    trainer.fit(module, DataLoader(data, 8, shuffle=True), DataLoader(data, 24), ckpt_path=checkpoint)
    return module, watch


WEIGHTS = ("net.0.weight", "net.2.weight", "net.4.weight")


@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_the_smallest_weights_are_zero_during_a_sparse_phase_and_free_behind_it(tmp_path: Path, scope: Any) -> None:
    _, watch = fit(tmp_path, [Sparse(0.5, begin=0.25, end=0.75, scope=scope)])
    assert watch.held == [[], ["sparse"], ["sparse"], [], [], ["sparse"], ["sparse"], []]
    zeros = [{name: (epoch[name] == 0) for name in WEIGHTS} for epoch in watch.end]
    for number in (1, 2, 5, 6):
        counts = {name: int(where.sum()) for name, where in zeros[number].items()}
        assert sum(counts.values()) == (48 + 64 + 24) // 2
        if scope == "tensor":
            assert list(counts.values()) == [24, 32, 12]
    assert all(torch.equal(zeros[1][name], zeros[2][name]) for name in WEIGHTS)
    assert not any(bool(where.any()) for where in zeros[0].values())
    for number in (3, 7):  # but for weights of units that are dead, all are free and have moved
        assert sum(int(where.sum()) for where in zeros[number].values()) < 30
    for name in WEIGHTS if scope == "tensor" else ():
        size, held = watch.end[0][name].abs(), zeros[1][name]
        assert size[held].max() <= size[~held].min()


@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_exactly_the_share_is_held_also_of_equal_weights(scope: Any) -> None:
    layer = nn.Linear(40, 25, bias=False).bfloat16()
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1000).view(25, 40) // 100 + 1)
    Sparse(0.25, scope=scope).enter(Scene(layer, (), None, None, generation=1))
    assert int((layer.weight == 0).sum()) == 250
    assert layer.weight.detach().flatten()[250] == 3


@pytest.mark.parametrize(("begin", "end"), [(0.07, 0.55), (0.14, 0.28), (0.56, 0.57)])
def test_a_phase_of_whole_epochs_has_just_these(begin: float, end: float) -> None:
    phase = Sparse(0.5, begin=begin, end=end)
    held = [epoch for epoch in range(100) if phase.holds(1, epoch, 100)]
    assert held == list(range(round(100 * begin), round(100 * end)))


def test_norms_are_measured_in_single_precision() -> None:
    layer, phase = nn.Linear(50, 50, bias=False).bfloat16(), Rescale()
    first = layer.weight.detach().float().norm()
    phase.remember(layer)
    assert phase.state_dict()["norms"]["weight"] == pytest.approx(float(first))


def test_freed_weights_begin_without_momentum() -> None:
    layer, phase = nn.Linear(4, 2, bias=False), Sparse(0.5)
    optimizer = SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    scene = Scene(layer, (optimizer,), None, None, generation=1)
    phase.enter(scene)
    held = layer.weight == 0
    assert int(held.sum()) == 4
    phase.leave(scene)
    momentum = optimizer.state[layer.weight]["momentum_buffer"]
    assert torch.equal(momentum == 0, held)


def test_climbing_layers_climb_without_decay_and_the_others_descend() -> None:
    module = Module(decay=0.5)
    optimizer = SGD(module.parameters(), lr=1.0, weight_decay=0.5)
    loss = nn.functional.cross_entropy(module(torch.randn(8, 6)), torch.arange(8) % 3)
    loss.backward()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in module.named_parameters()}
    phase, scene = Ascent(["net.0.*"], scale=0.01), Scene(module, (optimizer,), None, None, generation=1)
    phase.enter(scene)
    with torch.no_grad():
        phase.before_step(scene)
        optimizer.step()
        phase.after_step(scene)
    for name, parameter in module.named_parameters():
        value, gradient = before[name]
        wanted = value + 0.01 * gradient if name.startswith("net.0") else value - gradient - 0.5 * value
        torch.testing.assert_close(parameter.detach(), wanted)


class Halves(Module):
    """Two optimizers that step one after the other on the gradients of one backward."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.moved: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss, optimizers = super().training_step(batch, batch_idx), self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        self.before = self.net[4].weight.detach().clone(), self.net[4].weight.grad.clone()
        for optimizer in optimizers:
            optimizer.step()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        before, gradient = self.before
        self.moved.append((self.net[4].weight.detach() - before, gradient))

    def configure_optimizers(self) -> Any:
        return SGD(self.net[:2].parameters(), lr=1.0), SGD(self.net[2:].parameters(), lr=1.0, weight_decay=0.5)


def test_with_several_optimizers_each_gradient_is_turned_round_once(tmp_path: Path) -> None:
    module, _ = fit(tmp_path, [Ascent(["net.4.weight"], scale=0.125, end=1.0)], module=Halves(), score_fit=False)
    assert len(module.moved) == 24
    for moved, gradient in module.moved:
        torch.testing.assert_close(moved, 0.125 * gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("build", [SGD, Adam, Adagrad, torch.optim.RMSprop, torch.optim.NAdam])
def test_a_layer_climbs_as_slowly_with_every_optimizer(build: Any) -> None:
    """A step up is a small part of the step down that the optimizer would take: as at a smaller learning rate."""
    for patterns in (["weight"], ["nothing.*"]):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3, bias=False)
        optimizer = build(layer.parameters(), lr=0.5)
        first = layer.weight.detach().clone()
        layer.weight.grad = torch.randn(3, 4)
        scene, phase = Scene(layer, (optimizer,), None, None, generation=1), Ascent(patterns, scale=0.01)
        with torch.no_grad():
            phase.before_step(scene)
            optimizer.step()
            phase.after_step(scene)
        if patterns == ["weight"]:
            up = layer.weight.detach() - first
        else:
            torch.testing.assert_close(up, -0.01 * (layer.weight.detach() - first), rtol=1e-3, atol=1e-6)


def test_behind_an_ascent_every_optimizer_begins_anew() -> None:
    for build in (lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adagrad(p, lr=0.1), lambda p: Adam(p, lr=0.1)):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = build(layer.parameters())
        for steps in range(1, 4):
            if steps == 3:
                Ascent(["weight"]).leave(Scene(layer, (optimizer,), None, None, generation=1))
                twin = copy.deepcopy(layer)
                fresh = build(twin.parameters())
                for parameter in twin.parameters():
                    parameter.grad = torch.full_like(parameter, 3.0)
                fresh.step()
            for parameter in layer.parameters():
                parameter.grad = torch.full_like(parameter, float(steps))
            optimizer.step()
        assert torch.equal(layer.weight, twin.weight)


@pytest.mark.parametrize("build", [torch.optim.Adafactor, getattr(torch.optim, "Muon", torch.optim.Adafactor)])
def test_an_optimizer_that_decays_on_its_own_cannot_ascend(build: Any) -> None:
    layer = nn.Linear(3, 2, bias=False)
    for decay in (0.1, 0.0):
        scene = Scene(layer, (build(layer.parameters(), lr=0.1, weight_decay=decay),), None, None, generation=1)
        with pytest.raises(ValueError, match="decays weights on its own") if decay else nullcontext():
            Ascent(["weight"]).enter(scene)


def test_an_ascent_that_cannot_be_is_refused(tmp_path: Path) -> None:
    module = Module()
    scene = Scene(module, (SGD(module.parameters(), lr=1.0),), None, None, generation=1)
    with pytest.raises(ValueError, match=r"'head\.\*' matches none\. (Did you mean|Some of them are) "):
        Ascent(["head.*"]).enter(scene)
    scene = Scene(module, (AdamW(module.parameters(), weight_decay=0.1),), None, None, generation=1)
    with pytest.raises(ValueError, match="AdamW decays weights on its own"):
        Ascent(["net.0.*"]).enter(scene)
    scene = Scene(module, (torch.optim.LBFGS(module.parameters()),), None, None, generation=1)
    with pytest.raises(ValueError, match="but LBFGS looks several times"):
        Ascent(["net.0.*"]).enter(scene)
    with pytest.raises(ValueError, match=r"`scale` to be a number greater than 0, but got '0\.01'"):
        Ascent(["net.*"], scale="0.01")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`layers` to be a sequence"):
        Ascent("net.*")
    with pytest.raises(ValueError, match=r"0 <= begin < end <= 1, but got .* and None"):
        SlimFirst(end=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`first_generation` to be a whole number of at least 1, but got 1\.5"):
        SlimFirst(first_generation=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 <= begin < end <= 1"):
        Sparse(0.5, begin=0.5, end=0.5)
    with pytest.raises(ValueError, match=r"`share` to be in \(0, 1\), but got 2\. It is the share of the weights that"):
        Sparse(2)


def test_bottom_up_keeps_one_block_more_in_each_generation_and_rescales_it(tmp_path: Path) -> None:
    split = BottomUp(("net.2", "net.4"))
    _, watch = fit(tmp_path, [Rescale()], split=split, reset="layer", epochs_per_generation=2, rate=None)
    first = {name: watch.start[0][name].norm() for name in WEIGHTS}
    for epoch, kept in ((2, WEIGHTS[:1]), (4, WEIGHTS[:2]), (6, WEIGHTS[:2])):
        before, after = watch.end[epoch - 1], watch.start[epoch]
        for name in WEIGHTS:
            same = torch.cosine_similarity(before[name].flatten(), after[name].flatten(), dim=0)
            assert (float(same) > 1 - 1e-6) == (name in kept), (epoch, name)
            if name in kept:
                torch.testing.assert_close(after[name].norm(), first[name])


def test_what_a_generation_redraws_is_absent_first_and_then_orthogonal_to_what_was_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        _, watch = fit(tmp_path, [Dropped(end=0.5)], split=Overlap(0.6), reset="orthogonal")
    assert "generation 2 of 2, its redraw comes later, by a phase." in caplog.text
    assert watch.held == [[]] * 4 + [["dropped"]] * 2 + [[]] * 2
    absent = {name: (watch.start[4][name] == 0).all(1) for name in WEIGHTS}
    assert 0 < sum(int(rows.sum()) for rows in absent.values()) < 16
    assert all(torch.equal((watch.end[5][name] == 0).all(1), absent[name]) for name in WEIGHTS)
    for name, rows in absent.items():
        assert torch.equal(watch.start[4][name.replace("weight", "bias")] == 0, rows)
        before, trained, redrawn = watch.end[3][name], watch.end[5][name], watch.start[6][name]
        assert torch.equal(redrawn[~rows], trained[~rows]), "the rest has trained on, and stays"
        assert bool((redrawn[rows] != 0).any(1).all())
        held = torch.where(rows[:, None], before, trained)
        if rows.any() and torch.linalg.matrix_rank(held) < held.shape[1]:
            assert (redrawn[rows] @ held.T).abs().max() < 1e-6


def test_a_redraw_in_several_ways_cannot_be_put_off(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'dormant' has 2 ways"):
        fit(tmp_path, [Dropped()], split=Dormant())
    with pytest.raises(ValueError, match="`first_generation` of phase 'dropped' to be at least 2"):
        Dropped(first_generation=1)


PHASES = {
    "dsd": lambda: [Sparse(0.5, begin=0.25, end=0.75)],
    "ac/dc": lambda: [Sparse(0.8, end=0.5, scope="all", first_generation=2)],
    "seal": lambda: [Ascent(["net.0.*"], end=0.5)],
    "lw": lambda: [Rescale()],
    "repr": lambda: [Dropped(end=0.5)],
    "both": lambda: [Sparse(0.5, begin=0.25, end=0.75), Ascent(["net.0.*"], end=0.5)],
}


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_run_resumed_within_a_phase_or_between_generations_is_the_whole_one(
    tmp_path: Path, name: str, epoch: int
) -> None:
    options: dict[str, Any] = {"reset": "layer"} if name != "ac/dc" else {"optimizer": "keep"}
    if name == "repr":
        options = {"split": Overlap(0.5), "reset": "orthogonal"}
    whole, _ = fit(tmp_path / "whole", PHASES[name](), **options)
    again, _ = fit(tmp_path / "again", PHASES[name](), tmp_path / "whole" / f"epoch={epoch}.ckpt", **options)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_other_phases_than_the_checkpoint_s_are_refused(tmp_path: Path) -> None:
    fit(tmp_path, [Sparse(0.5)])
    with pytest.raises(ValueError, match="`phases="):
        fit(tmp_path, [Sparse(0.6)], tmp_path / "epoch=1.ckpt")


class Embedded(Module):
    """Its embedding has sparse gradients, of the rows that a batch has asked for."""

    def __init__(self, decay: float = 0.0) -> None:
        super().__init__(decay)
        self.rows = nn.Embedding(8, 6, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.rows((x[:, 0] > 0).long()))

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.1)


def test_gradients_may_be_sparse(tmp_path: Path) -> None:
    _, watch = fit(tmp_path / "sparse", [Sparse(0.5)], module=Embedded())
    assert all(int((epoch["rows.weight"] == 0).sum()) == 24 for epoch in watch.end)
    _, watch = fit(tmp_path / "dropped", [Dropped(end=0.5)], module=Embedded(), reset="layer")
    assert all(int((watch.end[epoch]["rows.weight"] == 0).sum()) == 24 for epoch in (4, 5))
    _, watch = fit(tmp_path / "ascent", [Ascent(["rows.*"])], module=Embedded())
    assert not torch.equal(watch.start[0]["rows.weight"], watch.end[0]["rows.weight"])


def test_a_phase_of_one_s_own_without_a_name_is_refused() -> None:
    class Nameless(Phase):
        pass

    with pytest.raises(ValueError, match=r"Expected argument `phases` to have a name .* class Nameless has none"):
        KnowledgeEvolution(phases=[Nameless()])
