"""The fit hypothesis is scored as the module scores itself, from the same batches, and disturbs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.nn import functional as F

from lightning_ke import KnowledgeEvolution, extract_slim
from tests.callback.modules import CLASSES, Classifier, make_trainer, network, same, train_loader, val_loader, weights


class SlimAfterwards(Callback):
    """After each validation evaluates the slim network by hand."""

    def __init__(self, callback: KnowledgeEvolution) -> None:
        self.callback = callback
        self.expected: list[dict[str, float]] = []
        self.logged: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        slim = self.callback.slim_network(pl_module).eval()
        right = total = 0
        loss = 0.0
        for x, y in val_loader():
            logits = slim(x)
            right += int((logits.argmax(1) == y).sum())
            loss += float(F.cross_entropy(logits, y)) * len(y)
            total += len(y)
        self.expected.append({"val_acc": right / total, "val_loss": loss / total})
        metrics = trainer.callback_metrics
        self.logged.append({name: float(metrics[f"ke/fit/{name}"]) for name in ("val_acc", "val_loss")})


def test_fit_metrics_equal_the_slim_network_evaluated_independently(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0)
    witness = SlimAfterwards(callback)
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback, witness])
    trainer.fit(Classifier(), train_loader(), val_loader())
    for logged, expected in zip(witness.logged, witness.expected, strict=True):
        assert logged == pytest.approx(expected, rel=1e-5)
    record = callback.history[0]
    assert record["fit"] == pytest.approx(witness.expected[1], rel=1e-5)
    assert record["fit"]["val_loss"] != pytest.approx(record["dense"]["val_loss"], rel=1e-3)


def test_a_slim_network_cut_in_the_middle_of_a_training_can_be_validated(tmp_path: Path) -> None:
    """Lightning remembers where a module that has logged keeps its metric objects; the copy has objects of its own."""
    seed_everything(0)
    callback = KnowledgeEvolution(epochs_per_generation=1, seed=0)
    found: list[Any] = []

    class Validated(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            assert callback.mask is not None
            for slim in (callback.slim_network(pl_module), extract_slim(pl_module, callback.mask)):
                found.extend(make_trainer(tmp_path).validate(slim, val_loader(), verbose=False))

    make_trainer(tmp_path, max_epochs=1, callbacks=[callback, Validated()]).fit(
        Classifier(), train_loader(), val_loader()
    )
    assert found == [pytest.approx(callback.history[0]["fit"], rel=1e-5)] * 2


def test_wels_scores_the_masked_network(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(split="wels", epochs_per_generation=2, seed=0)
    module = Classifier()
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(module, train_loader(), val_loader())
    assert callback.mask is not None
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter *= callback.mask[name]
    [score] = make_trainer(tmp_path).validate(module, val_loader(), verbose=False)
    assert callback.history[0]["fit"] == pytest.approx(score, rel=1e-5)


def trained(tmp_path: Path, callbacks: list[Callback], **kwargs: Any) -> dict[str, Tensor]:
    seed_everything(0)
    module = Classifier()
    make_trainer(tmp_path, max_epochs=3, callbacks=callbacks, **kwargs).fit(module, train_loader(), val_loader())
    return weights(module)


@pytest.mark.parametrize("arguments", [{}, {"score_fit": False}, {"fit_norm": "reestimate"}], ids=str)
def test_one_generation_is_exactly_the_training_without_the_callback(tmp_path: Path, arguments: dict[str, Any]) -> None:
    """Drawing, scoring and recording leave weights, dropout, shuffling and BatchNorm of the training alone."""
    plain = trained(tmp_path, [])
    evolved = trained(tmp_path, [KnowledgeEvolution(generations=1, seed=0, **arguments)])
    assert same(plain, evolved) == []


class Thorough(Classifier):
    """Logs in every way that Lightning allows."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torchmetrics.MetricCollection(
            {"top1": torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro")}, prefix="m/"
        )
        self.collected: list[Tensor] = []
        self.hidden = torchmetrics.MeanMetric()

    def on_validation_epoch_start(self) -> None:
        self.collected.clear()
        self.log("started", 1.0)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # type: ignore[override]
        x, y = batch.pop("x"), batch.pop("y")
        x.mul_(2.0)
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("stepwise", loss, on_step=True, on_epoch=True, batch_size=len(y))
        self.scores.update(logits, y)
        if batch_idx % 2 == 0:
            self.log_dict({"a": loss, "b": loss * 2}, on_epoch=True, batch_size=len(y))
        self.hidden.update(loss, len(y))
        self.collected.append(logits.argmax(1).float())

    def on_validation_epoch_end(self) -> None:
        self.log("mean_class", torch.cat(self.collected).mean())
        self.log_dict(self.scores)
        self.log("hidden", self.hidden.compute())
        self.hidden.reset()


def as_dicts(loader: Any) -> list[dict[str, Tensor]]:
    return [{"x": x, "y": y} for x, y in loader]


class Dicts(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, seed: int, count: int = 12) -> None:
        self.items = [(x[0], y[0]) for x, y in val_loader(1, count, seed)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.items[index][0].clone(), "y": self.items[index][1]}


@pytest.mark.parametrize("loaders", [1, 2])
def test_everything_that_a_module_logs_is_logged_for_the_fit_hypothesis(tmp_path: Path, loaders: int) -> None:
    """Also when the module changes its batch; and the scores are those of the slim network validated alone."""
    seed_everything(0)
    callback = KnowledgeEvolution(generations=1, seed=0)
    module = Thorough()
    sets = [torch.utils.data.DataLoader(Dicts(seed), batch_size=5) for seed in range(loaders)]
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[callback])
    trainer.fit(module, train_loader(), sets)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    plain = make_trainer(tmp_path)
    expected_fit, expected_dense = {}, {}
    for score in plain.validate(callback.slim_network(module), sets, verbose=False):
        expected_fit.update(score)
    for score in plain.validate(module, sets, verbose=False):
        expected_dense.update(score)
    fit = {name[len("ke/fit/") :]: value for name, value in logged.items() if name.startswith("ke/fit/")}
    assert len(expected_fit) >= 7 * 1
    assert {name: fit[name] for name in expected_fit} == pytest.approx(expected_fit, rel=1e-5)
    assert {name: logged[name] for name in expected_dense} == pytest.approx(expected_dense, rel=1e-5)
    assert fit["hidden"] != pytest.approx(logged["hidden"], rel=1e-3)
    [record] = callback.history
    assert {name: record["fit"][name] for name in expected_fit} == pytest.approx(expected_fit, rel=1e-5)
    assert {name: record["dense"][name] for name in expected_dense} == pytest.approx(expected_dense, rel=1e-5)


def test_a_checkpoint_can_monitor_the_fit_hypothesis(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="ke/fit/val_acc", mode="max", filename="{epoch}")
    callback = KnowledgeEvolution(generations=3, seed=0)
    trained(tmp_path, [callback, best], enable_checkpointing=True)
    assert best.best_model_score is not None
    assert float(best.best_model_score) >= max(record["fit"]["val_acc"] for record in callback.history)


class Scored(Callback):
    """In which epochs a metric of the fit hypothesis was there."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert trainer._results is not None
        if any(name.startswith("ke/fit/") for name in trainer._results.metrics(on_step=False)["callback"]):
            self.epochs.append(trainer.current_epoch)


@pytest.mark.parametrize(
    ("score_fit", "every", "epochs"),
    [("epoch", 1, [0, 1, 2, 3, 4, 5]), ("generation", 1, [2, 5]), ("generation", 2, [1, 5]), (False, 1, [])],
)
def test_when_the_fit_hypothesis_is_scored(tmp_path: Path, score_fit: Any, every: int, epochs: list[int]) -> None:
    seed_everything(0)
    scored = Scored()
    callback = KnowledgeEvolution(epochs_per_generation=3, score_fit=score_fit, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=6, check_val_every_n_epoch=every, callbacks=[callback, scored])
    trainer.fit(Classifier(), train_loader(), val_loader())
    assert scored.epochs == epochs
    assert all(bool(record["fit"]) == (score_fit is not False) for record in callback.history)


def test_generation_ends_are_logged_in_one_call(tmp_path: Path) -> None:
    class Calls(CSVLogger):
        calls: list[dict[str, float]] = []

        def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
            self.calls.append(dict(metrics))

    logger = Calls(tmp_path)
    callback = KnowledgeEvolution(generations=2, seed=0)
    seed_everything(0)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback], logger=logger)
    trainer.fit(Classifier(), train_loader(), val_loader())
    ends = [call for call in logger.calls if "ke/generation" in call]
    assert [call["ke/generation"] for call in ends] == [1.0, 2.0]
    for call, record in zip(ends, callback.history, strict=True):
        assert call["ke/generation_end/dense/val_acc"] == record["dense"]["val_acc"]
        assert call["ke/generation_end/fit/val_acc"] == record["fit"]["val_acc"]


class Silent(Classifier):
    """Shows its logger and its optimizers to whoever runs its validation."""

    seen: list[Any] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if self.logger is not None:
            self.logger.log_metrics({"direct": 1.0})


def test_the_second_pass_does_not_write_to_the_users_logger(tmp_path: Path) -> None:
    class Counting(CSVLogger):
        direct = 0

        def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
            self.direct += "direct" in metrics

    logger = Counting(tmp_path)
    seed_everything(0)
    trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[KnowledgeEvolution(generations=1)], logger=logger)
    trainer.fit(Silent(), train_loader(), val_loader())
    assert logger.direct == 3, "once for each of the three validation batches"


class Phased(Classifier):
    """Changes a plain attribute while it trains."""

    temperature = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.temperature = 1.0

    def on_train_epoch_end(self) -> None:
        self.temperature *= 0.5

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("temperature", self.temperature)


def test_plain_attributes_are_taken_over(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=3, seed=0)
    make_trainer(tmp_path, max_epochs=3, callbacks=[callback]).fit(Phased(), train_loader(), val_loader())
    assert [record["fit"]["temperature"] for record in callback.history] == [1.0, 0.5, 0.25]


def test_reestimated_statistics_help_an_early_fit_hypothesis(tmp_path: Path) -> None:
    """Over several seeds the loss of the fit hypothesis falls when its own statistics are used."""

    def losses(fit_norm: Any) -> list[float]:
        found = []
        for seed in range(4):
            seed_everything(seed)
            callback = KnowledgeEvolution(generations=1, seed=seed, fit_norm=fit_norm)
            trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback])
            trainer.fit(Classifier(dropout=0.0), train_loader(), val_loader())
            found.append(callback.history[0]["fit"]["val_loss"])
        return found

    dense, reestimated = losses("dense"), losses("reestimate")
    assert sum(reestimated) < sum(dense)


@pytest.mark.parametrize("score_fit", ["epoch", "generation"])
def test_the_first_score_of_a_run_has_reestimated_statistics(tmp_path: Path, score_fit: Any) -> None:
    """As an estimate by hand on all images, which are one batch."""
    seed_everything(0)
    callback = KnowledgeEvolution(generations=1, seed=0, score_fit=score_fit, fit_norm="reestimate")
    module, trainer = Classifier(dropout=0.0), make_trainer(tmp_path, max_epochs=1, callbacks=[callback])
    trainer.fit(module, train_loader(24), val_loader())
    slim, stale = callback.slim_network(module, recalibrate=train_loader(24)), callback.slim_network(module)
    right, wrong = (make_trainer(tmp_path).validate(each, val_loader(), verbose=False)[0] for each in (slim, stale))
    assert callback.history[0]["fit"]["val_loss"] == pytest.approx(right["val_loss"], rel=1e-4)
    assert callback.history[0]["fit"]["val_loss"] != pytest.approx(wrong["val_loss"], rel=1e-3)


def test_recalibrating_changes_statistics_only(tmp_path: Path) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=1, seed=0)
    module = Classifier()
    make_trainer(tmp_path, max_epochs=1, callbacks=[callback]).fit(module, train_loader(), val_loader())
    plain = callback.slim_network(module)
    with pytest.raises(TypeError, match=r"Expected argument `recalibrate` to yield batches.* but got True\."):
        callback.slim_network(module, recalibrate=True)  # type: ignore[arg-type]
    again = callback.slim_network(module, recalibrate=train_loader())
    assert type(again) is Classifier
    changed = same(weights(plain), weights(again))
    assert changed
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)
    x = torch.cat([x for x, _ in train_loader()])
    features = again.model[0](x)
    assert torch.allclose(again.model[1].running_mean, features.mean((0, 2, 3)), atol=1e-5)


class NoForward(LightningModule):
    """Calls its parts from its steps and has no `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()[:-1]
        self.head = torch.nn.Linear(8, CLASSES)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.head(self.body(batch[0])), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def test_an_example_input_is_no_matter_to_a_split_that_follows_no_channels(tmp_path: Path) -> None:
    seed_everything(0)
    module, callback = NoForward(), KnowledgeEvolution(split="wels", generations=2, seed=0)
    module.example_input_array = torch.zeros(2, 3, 6, 6)
    make_trainer(tmp_path, max_epochs=2, callbacks=[callback]).fit(module, train_loader(), val_loader())
    assert all(record["fit"] for record in callback.history)


@pytest.mark.parametrize("sanity", [0, 2])
def test_a_module_without_forward_is_traced_through_its_first_calls(tmp_path: Path, sanity: int) -> None:
    seed_everything(0)
    callback = KnowledgeEvolution(generations=2, seed=0)
    module = NoForward()
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback], num_sanity_val_steps=sanity)
    trainer.fit(module, train_loader(), val_loader())
    slim = callback.slim_network(module)
    assert slim.body[0].weight.shape == (4, 3, 3, 3)
    [score] = make_trainer(tmp_path).validate(slim, val_loader(), verbose=False)
    assert callback.history[-1]["fit"] == pytest.approx(score, rel=1e-5)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())
