"""Runs that do what one should not, or what nobody thought of, and are resumed: exact all the same, or named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch.utils.data import DataLoader

from lightning_ke import KnowledgeEvolution
from lightning_ke.resets import LayerReset, ShrinkPerturb
from tests.callback.modules import Classifier, data, make_trainer, same, train_loader, val_loader, weights


def train(
    folder: Path, checkpoint: Any = None, *, module: Any = Classifier, loader: Any = train_loader, **kw: Any
) -> Any:
    """Three generations of two epochs; a resumed run has another seed, so that all must come from the checkpoint."""
    seed_everything(0 if checkpoint is None else 99)
    network = module()
    callback = KnowledgeEvolution(**{"epochs_per_generation": 2, "seed": 0, **kw.pop("arguments", {})})
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, **kw.pop("saver", {}))
    callbacks = [callback, saver, *kw.pop("callbacks", [])]
    trainer = make_trainer(folder, max_epochs=6, callbacks=callbacks, enable_checkpointing=True, **kw)
    trainer.fit(network, loader(), val_loader(), ckpt_path=checkpoint)
    return network


def assert_resumes(folder: Path, **kw: Any) -> None:
    """Within generations and at their ends."""
    whole = weights(train(folder / "whole", **kw))
    for epoch in (0, 1, 2):
        again = train(folder / f"from {epoch}", folder / "whole" / f"epoch={epoch}.ckpt", **kw)
        assert same(whole, weights(again)) == [], f"from the end of epoch {epoch}"


@pytest.mark.parametrize("lengths", [np.int64(2), [np.int64(2)] * 3], ids=["one", "each"])
def test_numpy_arguments_train_and_resume_as_those_of_python(tmp_path: Path, lengths: Any) -> None:
    arguments = {"epochs_per_generation": lengths, "generations": np.int64(3), "seed": np.int64(0)}
    plain = weights(train(tmp_path / "plain"))
    train(tmp_path / "numpy", arguments=arguments)
    again = train(tmp_path / "again", tmp_path / "numpy" / "epoch=1.ckpt", arguments=arguments)
    assert same(plain, weights(again)) == []


class DrawsEverywhere(Classifier):
    """Takes random numbers in every hook in which an ordinary module may."""

    def setup(self, stage: str) -> None:
        torch.rand(5)

    def on_fit_start(self) -> None:
        torch.rand(4)

    def on_train_start(self) -> None:
        torch.rand(3)

    def on_train_epoch_start(self) -> None:
        torch.rand(2)

    def on_validation_epoch_end(self) -> None:
        torch.rand(1)

    def on_train_epoch_end(self) -> None:
        torch.rand(1)


def test_a_module_that_draws_in_its_hooks(tmp_path: Path) -> None:
    assert_resumes(tmp_path, module=DrawsEverywhere)


def with_generator() -> DataLoader[Any]:
    """As PyTorch's notes on reproducibility recommend it."""
    return DataLoader(data(), 8, shuffle=True, generator=torch.Generator().manual_seed(3))


@pytest.mark.compat(
    "Checkpoints and interruptions", "a loader with a generator of its own", "works", note="resumes bit for bit"
)
def test_a_loader_with_a_generator_of_its_own(tmp_path: Path) -> None:
    assert_resumes(tmp_path, loader=with_generator)


class BringsItsData(Classifier):
    """Builds a loader with a generator of its own whenever it is asked for one."""

    def train_dataloader(self) -> DataLoader[Any]:
        return with_generator()


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize(
    ("module", "loader"),
    [(Classifier, train_loader), (Classifier, with_generator), (BringsItsData, lambda: None)],
    ids=["shuffled", "the same with a generator", "another with a generator"],
)
def test_loaders_that_are_built_anew(tmp_path: Path, every: int, module: Any, loader: Callable[[], Any]) -> None:
    assert_resumes(tmp_path, module=module, loader=loader, reload_dataloaders_every_n_epochs=every)


def test_doubles_come_back_as_doubles(tmp_path: Path) -> None:
    """Lightning alone reads them into the module's floats."""
    assert_resumes(tmp_path, precision="64-true")


def test_a_trainer_that_has_trained_without_generations_is_refused(tmp_path: Path) -> None:
    seed_everything(0)
    module, trainer = Classifier(), make_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, train_loader(), val_loader())
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0)
    trainer.callbacks.append(callback)
    trainer.fit_loop.max_epochs = 4
    with pytest.raises(ValueError, match=r"trained 2 epochs without this callback\. Give it the callback that it had"):
        trainer.fit(module, train_loader(), val_loader())
    assert callback.history == []


@pytest.mark.parametrize("resumed", [False, True], ids=["anew", "resumed"])
def test_a_callback_that_trains_once_more(tmp_path: Path, caplog: pytest.LogCaptureFixture, resumed: bool) -> None:
    """With another Trainer it forgets its first run and says so; a checkpoint may bring a history of its own."""
    callback = KnowledgeEvolution(epochs_per_generation=1, seed=0)
    make_trainer(tmp_path, max_epochs=3, callbacks=[callback]).fit(Classifier(), train_loader(), val_loader())
    first, mask = callback.history, callback.mask
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[callback])
    checkpoint = None
    if resumed:
        checkpoint = tmp_path / "one.ckpt"
        saver = ModelCheckpoint(tmp_path, filename="one", every_n_epochs=1, save_top_k=-1)
        own = KnowledgeEvolution(epochs_per_generation=1, seed=0)
        one = make_trainer(tmp_path, max_epochs=1, callbacks=[own, saver], enable_checkpointing=True)
        one.fit(Classifier(), train_loader(), val_loader())
    with caplog.at_level("INFO"):
        trainer.fit(Classifier(), train_loader(), val_loader(), ckpt_path=checkpoint)
    assert "mask and history of this callback's earlier run are forgotten" in caplog.text
    assert [record["generation"] for record in callback.history] == [1, 2]
    assert len(first) == 3
    assert callback.mask == mask


class LogsAtTheEnd(Classifier):
    """Logs once more what the checkpoint's metrics name, too."""

    def on_train_epoch_end(self) -> None:
        self.log("epochs", float(self.current_epoch + 1))


@pytest.mark.parametrize(
    "options",
    [{}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 3}],
    ids=["epoch", "validation", "batch"],
)
def test_a_module_that_logs_at_the_end_of_an_epoch(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = weights(train(tmp_path / "whole", module=LogsAtTheEnd, saver=options))
    again = train(tmp_path / "again", tmp_path / "whole" / "epoch=2.ckpt", module=LogsAtTheEnd, saver=options)
    assert same(whole, weights(again)) == []
    assert float(again.trainer.callback_metrics["epochs"]) == 6.0


def test_workers_that_live_through_several_epochs_keep_their_order_and_are_named(tmp_path: Path) -> None:
    def loader() -> DataLoader[Any]:
        return train_loader(num_workers=1, persistent_workers=True)

    whole = weights(train(tmp_path / "whole", loader=loader))
    with pytest.warns(UserWarning, match=r"persistent_workers=True.*Use `persistent_workers=False`"):
        again = train(tmp_path / "again", tmp_path / "whole" / "epoch=1.ckpt", loader=loader)
    assert same(whole, weights(again)) == [], "nothing is drawn in the workers here"


class Saves(Callback):
    """Writes a checkpoint where nobody else does."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where

    def save(self, trainer: Trainer, here: str, epoch: int) -> None:
        if here == self.where and trainer.current_epoch == epoch:
            trainer.save_checkpoint(self.path)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, "train start", 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, "first epoch start", 0)
        self.save(trainer, "epoch start within a generation", 1)
        self.save(trainer, "epoch start behind a redraw", 2)


@pytest.mark.parametrize("module", [Classifier, DrawsEverywhere])
@pytest.mark.parametrize(
    "where", ["train start", "first epoch start", "epoch start within a generation", "epoch start behind a redraw"]
)
def test_checkpoints_at_odd_moments(tmp_path: Path, where: str, module: Any) -> None:
    path = tmp_path / "odd.ckpt"
    whole = weights(train(tmp_path / "whole", module=module, callbacks=[Saves(path, where)]))
    assert same(whole, weights(train(tmp_path / "again", path, module=module))) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reset": "zero"}, r"had `reset='layer'`, this one goes on with `reset='zero'`"),
        ({"norm": "reset"}, r"had `norm='keep'`, this one goes on with `norm='reset'`"),
        ({"exclude": ["model.3.*"]}, r"had `exclude=\[\]`, this one goes on with `exclude=\['model\.3\.\*'\]`"),
        ({"optimizer": "keep"}, r"had `optimizer='new'`, this one goes on with `optimizer='keep'`"),
        ({"lr_schedule": "continue"}, r"had `lr_schedule='restart'`, this one goes on with `lr_schedule='continue'`"),
    ],
)
def test_what_is_done_in_another_way_from_here_on_is_said(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    train(tmp_path)
    with pytest.warns(UserWarning, match=message):
        train(tmp_path / "again", tmp_path / "epoch=3.ckpt", arguments=changed)


def test_a_reset_that_has_not_seen_the_first_weights_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ValueError, match=r"Expected `reset='layer'` as in the checkpoint, but got `reset='rewind'`"):
        train(tmp_path / "again", tmp_path / "epoch=3.ckpt", arguments={"reset": "rewind"})


class Failing(ShrinkPerturb):
    """Fails when half of the network is redrawn."""

    def draw(self, stand_in: Any) -> None:
        if stand_in.name == "model.3":
            raise OSError("a passing fault")
        super().draw(stand_in)


def test_a_redraw_that_failed_is_begun_again(tmp_path: Path) -> None:
    class Layer(LayerReset):
        def draw(self, stand_in: Any) -> None:
            if stand_in.name == "model.3":
                raise OSError("a passing fault")
            super().draw(stand_in)

    with pytest.raises(OSError, match="a passing fault"):
        train(tmp_path, arguments={"reset": Layer()}, callbacks=[OnExceptionCheckpoint(tmp_path, "fault")])
    whole, again = train(tmp_path / "whole"), train(tmp_path / "again", tmp_path / "fault.ckpt")
    assert same(weights(whole), weights(again)) == []


def test_a_failed_redraw_that_cannot_be_begun_again_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a passing fault"):
        train(tmp_path, arguments={"reset": Failing()}, callbacks=[OnExceptionCheckpoint(tmp_path, "fault")])
    with pytest.raises(ValueError, match=r"one failed there, and reset 'shrink_perturb'.*earlier checkpoint"):
        train(tmp_path / "again", tmp_path / "fault.ckpt", arguments={"reset": "shrink_perturb"})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint as it should be."""
    folder = tmp_path_factory.mktemp("good")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "0")
        patch.setenv("PL_SEED_WORKERS", "0")
        train(folder)
    checkpoint: dict[str, Any] = torch.load(folder / "epoch=1.ckpt", weights_only=True)
    return checkpoint


OF_THE_STATE = ("settings", "clock", "policy", "reset", "phases", "seed", "mask", "calls", "scores", "history", "rng")


@pytest.mark.parametrize("name", OF_THE_STATE)
def test_a_state_with_a_hole_is_named(tmp_path: Path, good: dict[str, Any], name: str) -> None:
    spoilt = copy.deepcopy(good)
    del spoilt["callbacks"]["KnowledgeEvolution"][name]
    torch.save(spoilt, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=rf"whole state of KnowledgeEvolution.*KeyError '{name}'"):
        train(tmp_path, tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("clock", "generation"), -5, "Expected the clock of a run of generations"),
        (("clock", "closed"), 99, "Expected the clock of a run of generations"),
        (("clock", "closed"), "two", "whole state of KnowledgeEvolution"),
        (("mask",), 7, "whole state of KnowledgeEvolution"),
        (("history",), None, "whole state of KnowledgeEvolution"),
        (("rng",), [{"torch": torch.zeros(3, dtype=torch.uint8)}], "whole state of KnowledgeEvolution"),
        ((), "nonsense", "whole state of KnowledgeEvolution"),
    ],
)
def test_a_state_of_nonsense_is_named(
    tmp_path: Path, good: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    spoilt = copy.deepcopy(good)
    *inner, last = ("callbacks", "KnowledgeEvolution", *path)
    held = spoilt
    for name in inner:
        held = held[name]
    held[last] = value
    torch.save(spoilt, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=message):
        train(tmp_path, tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ({"state_dict": {}}, "pytorch-lightning_version"),
        ([1, 2], "pytorch-lightning_version"),
        (None, "pytorch-lightning_version"),
        ({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, "loops"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: Any, missing: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(
        ValueError, match=rf"weights\.pt` to be a checkpoint of a training, but it holds no '{missing}'"
    ):
        train(tmp_path, tmp_path / "weights.pt")
