"""Modules that spread their validation over hooks, or read what a copy has none of, are scored like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.nn import functional as F

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import CLASSES, Classifier, data, make_trainer, train_loader, val_loader


class Collects(Classifier):
    """Collects in each step what it logs at the end."""

    seen: list[Tensor]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen.append(self(batch[0]).argmax(1) == batch[1])

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", torch.cat(self.seen).float().mean())
        self.log("count", float(sum(map(len, self.seen))))


class Begins(Collects):
    """Makes what it collects in when a validation starts."""

    def on_validation_start(self) -> None:
        self.seen = []


class Batches(Classifier):
    """Counts in the hooks around a step, which hands its predictions on, and logs in all of them."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("size", float(len(batch[1])))

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        return logits.argmax(1)

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.val_acc.update(outputs, batch[1])
        self.log("right", (outputs == batch[1]).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", self.val_acc.compute())
        self.val_acc.reset()


class Ends(Collects):
    """Forgets what it has collected when a validation is over."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def on_validation_end(self) -> None:
        self.seen.clear()


@pytest.mark.parametrize("kind", [Begins, Batches, Ends])
def test_all_hooks_of_a_validation_take_part(tmp_path: Path, kind: type[Classifier]) -> None:
    """After several validations the scores are those of the slim and of the dense network validated alone."""
    seed_everything(0)
    callback, module = KnowledgeEvolution(generations=1, seed=0), kind()
    make_trainer(tmp_path, max_epochs=3, callbacks=[callback]).fit(module, train_loader(), val_loader())
    [fit] = make_trainer(tmp_path).validate(callback.slim_network(module), val_loader(), verbose=False)
    [dense] = make_trainer(tmp_path).validate(module, val_loader(), verbose=False)
    [record] = callback.history
    assert record["fit"] == pytest.approx(fit, rel=1e-5)
    assert record["dense"] == pytest.approx(dense, rel=1e-5)


class SeveralAtOnce(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch["first"], batch_idx)


def test_a_batch_of_several_loaders_at_once(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=1, seed=0)
    loader = CombinedLoader({"first": val_loader(), "second": val_loader(seed=2)}, "max_size")
    make_trainer(tmp_path, max_epochs=1, callbacks=[callback]).fit(SeveralAtOnce(), train_loader(), loader)
    assert callback.history[0]["fit"].keys() == {"val_loss", "val_acc"}


class LogsRates(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing but what follows is logged."""

    def on_validation_epoch_end(self) -> None:
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        self.log("rate", optimizer.param_groups[0]["lr"])
        self.log("last", schedule.get_last_lr()[0])
        optimizer.param_groups[0]["lr"] *= 0.5

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=10)]


def test_learning_rates_may_be_read_and_are_moved_once(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=1, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[callback])
    module = LogsRates()
    trainer.fit(module, train_loader(), val_loader())
    assert callback.history[0]["fit"] == {"rate": 0.5, "last": 0.5}
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


class Adversaries(LightningModule):
    """Two optimizers that are stepped by hand, one of them by a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Classifier().model
        self.head = torch.nn.Linear(CLASSES, CLASSES)
        self.val_acc = torchmetrics.MeanMetric()
        self.automatic_optimization = False

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[misc]
        with first.toggle_model():
            first.zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            first.step()

        def closure() -> Tensor:
            loss = F.cross_entropy(self(batch[0]), batch[1])
            second.zero_grad()
            self.manual_backward(loss)
            return loss

        second.step(closure=closure)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.body, self.head)]


def test_statistics_are_reestimated_by_a_step_with_several_optimizers(tmp_path: Path) -> None:
    seed_everything(0)
    module, callback = Adversaries(), KnowledgeEvolution(generations=1, seed=0, fit_norm="reestimate")
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(module, train_loader(), val_loader())
    assert "val_loss" in callback.history[0]["fit"]
    plain, again = callback.slim_network(module), callback.slim_network(module, recalibrate=train_loader())
    assert not torch.equal(plain.body[1].running_mean, again.body[1].running_mean)


class Normalises(Classifier):
    """Standardises its images where Lightning moves them."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [10 * batch[0] + 3, batch[1]] if isinstance(batch, list) else batch


def test_batches_are_recalibrated_on_as_they_are_trained_on(tmp_path: Path) -> None:
    seed_everything(0)
    module, callback = Normalises(), KnowledgeEvolution(generations=1, seed=0)
    make_trainer(tmp_path, max_epochs=1, callbacks=[callback]).fit(module, train_loader(), val_loader())
    slim = callback.slim_network(module, recalibrate=train_loader())
    x = torch.cat([10 * x + 3 for x, _ in train_loader()])
    assert torch.allclose(slim.model[1].running_mean, slim.model[0](x).mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert slim._trainer is None


class Streams(Classifier):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("images", float(sum(1 for _ in batch)))


def test_a_batch_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader(data(), batch_size=4, collate_fn=lambda items: (x for x, _ in items))
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[KnowledgeEvolution(generations=1, seed=0)])
    with pytest.raises(ValueError, match=r"validation batch that can be copied.*generator.*`score_fit=False`"):
        trainer.fit(Streams(), train_loader(), loader)


class WritesFiles(Classifier):
    def on_validation_epoch_end(self) -> None:
        assert self.logger is not None
        assert self.logger.save_dir is not None
        (Path(self.logger.save_dir) / "epoch.txt").write_text(str(self.current_epoch))


def test_what_a_copy_cannot_run_is_named(tmp_path: Path) -> None:
    callback = KnowledgeEvolution(generations=1, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[callback], logger=CSVLogger(tmp_path))
    with pytest.raises(RuntimeError, match=r"`on_validation_epoch_end` of WritesFiles .*no logger.*`score_fit=False`"):
        trainer.fit(WritesFiles(), train_loader(), val_loader())
