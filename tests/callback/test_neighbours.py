"""Other callbacks, precisions and compilers beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.nn import functional as F

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import Classifier, make_trainer, network, same, train_loader, val_loader, weights

AVERAGES = "never redrawn, begins anew with each generation; resume bit for bit"


@pytest.mark.compat("Callbacks", "WeightAveraging, EMAWeightAveraging", "works", note=AVERAGES)
def test_weight_averaging_is_scored_with_the_averaged_weights(tmp_path: Path) -> None:
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    seed_everything(0)
    callback = KnowledgeEvolution(generations=1, seed=0)
    average = averaging.WeightAveraging()
    module = Classifier()
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=[average, callback])
    trainer.fit(module, train_loader(), val_loader())
    # Training has ended, so the module holds the averaged weights.
    [score] = make_trainer(tmp_path).validate(callback.slim_network(module), val_loader(), verbose=False)
    assert callback.history[-1]["fit"] == pytest.approx(score, rel=1e-4)


class Teacher(Classifier):
    """Holds a copy of its network that no optimizer trains."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 4))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            target = self.teacher(batch[0]).softmax(1)
        return F.cross_entropy(self(batch[0]), target)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.model.parameters(), lr=0.05)


@pytest.mark.compat("Modules", "a teacher inside the module", "works", note="what no optimizer holds is never redrawn")
def test_a_teacher_inside_the_module_is_never_redrawn(tmp_path: Path) -> None:
    seed_everything(0)
    module = Teacher()
    before = weights(module.teacher)
    callback = KnowledgeEvolution(split="wels", generations=2, seed=0)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(module, train_loader(), val_loader())
    assert same(before, weights(module.teacher)) == []


class InSetup(Classifier):
    """Holds a part of its network at first, and builds the rest when Lightning asks for it."""

    def __init__(self) -> None:
        super().__init__()
        del self.model
        self.scale = torch.nn.Linear(4, 4)

    def setup(self, stage: str) -> None:
        self.model = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale(self.model(x))


class InConfigureModel(InSetup):
    def setup(self, stage: str) -> None:
        """Build nothing yet."""

    def configure_model(self) -> None:
        self.model = network()


@pytest.mark.compat("Modules", "a network that is built in `setup` or `configure_model`", "works")
@pytest.mark.parametrize("module", [InSetup, InConfigureModel])
def test_a_network_that_is_built_later_may_be_the_target(tmp_path: Path, module: Any) -> None:
    callback = KnowledgeEvolution(generations=2, target="model", seed=0)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(module(), train_loader(), val_loader())
    assert callback.mask is not None
    assert bool(callback.mask["scale.weight"].all())
    assert not bool(callback.mask["model.3.weight"].all())
    with pytest.raises(ValueError, match="Expected argument `target` to name a submodule, but there is no 'modle'"):
        make_trainer(tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2, target="modle")]).fit(
            module(), train_loader(), val_loader()
        )


class Seen(Callback):
    """The weights right before and right after a redraw."""

    def __init__(self) -> None:
        self.before: dict[str, torch.Tensor] = {}
        self.after: dict[str, torch.Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.before = weights(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 0:
            self.after = weights(pl_module)


@pytest.mark.parametrize("arguments", [{"exclude": ("model.3.*",)}, {"target": "model.3"}], ids=str)
def test_what_is_left_alone(tmp_path: Path, arguments: dict[str, Any]) -> None:
    seed_everything(0)
    seen = Seen()
    callback = KnowledgeEvolution(split="wels", generations=2, seed=0, **arguments)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback, seen]).fit(Classifier(), train_loader(), val_loader())
    redrawn = {name for name in same(seen.before, seen.after) if name.endswith("weight")}
    everything = {"model.0.weight", "model.3.weight", "model.9.weight"}
    assert redrawn == (everything - {"model.3.weight"} if "exclude" in arguments else {"model.3.weight"})


def test_norms_start_over_when_asked(tmp_path: Path) -> None:
    seed_everything(0)
    seen = Seen()
    callback = KnowledgeEvolution(generations=2, norm="reset", seed=0)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback, seen]).fit(Classifier(), train_loader(), val_loader())
    assert callback.mask is not None
    fit = callback.mask["model.1.weight"]
    assert (seen.after["model.1.weight"][~fit] == 1).all()
    assert (seen.after["model.1.running_mean"][~fit] == 0).all()
    assert torch.equal(seen.after["model.1.running_mean"][fit], seen.before["model.1.running_mean"][fit])
    assert (seen.before["model.1.running_mean"] != 0).all()


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_lower_precision(tmp_path: Path, precision: str) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=2, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback], precision=precision)
    trainer.fit(Classifier(), train_loader(), val_loader())
    assert [set(record["fit"]) for record in callback.history] == [{"val_loss", "val_acc"}] * 2


class Kept(Classifier):
    """Keeps a loss with its graph, as a careless module does."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.last_loss = super().training_step(batch, batch_idx)
        return self.last_loss


def test_a_module_that_keeps_its_loss_can_be_scored(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=2, seed=0)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(Kept(), train_loader(), val_loader())
    assert callback.history[-1]["fit"]


class Uncopyable(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.stream = (number for number in range(3))


def test_a_module_that_cannot_be_copied_is_told_what_to_do(tmp_path: Path) -> None:
    seed_everything(0)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2, split="wels")])
    with pytest.raises(ValueError, match="use `score_fit=False`"):
        trainer.fit(Uncopyable(), train_loader(), val_loader())
    assert trainer.global_step == 0
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[KnowledgeEvolution(generations=2)])
    with pytest.raises(RuntimeError, match="Expected Uncopyable to be copyable, so that its channels can be followed"):
        trainer.fit(Uncopyable(), train_loader(), val_loader())
    callback = KnowledgeEvolution(generations=2, split="wels", score_fit=False)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(Uncopyable(), train_loader(), val_loader())
    assert len(callback.history) == 2


@pytest.mark.compat("Trainer options", "accumulate_grad_batches", "works", note="gradients do not cross a boundary")
@pytest.mark.compat("Trainer options", "gradient_clip_val", "works")
def test_gradients_may_be_accumulated_and_clipped_across_a_boundary(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=3, seed=0)
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "val_check_interval": 0.5}
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=[callback], **options)
    trainer.fit(Classifier(), train_loader(), val_loader())
    assert [record["steps"] for record in callback.history] == [2, 2, 2]
