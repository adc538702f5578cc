"""Real signals to a real training process: SIGTERM, and the signal with which SLURM announces that time is up."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lightning_ke import KnowledgeEvolution
from lightning_ke.resets import get_reset
from tests.callback.modules import Classifier, data, make_trainer, same, val_loader, weights
from tests.callback.test_killed import in_a_process

loaders = pytest.importorskip("torchdata.stateful_dataloader")


def slow(where: str) -> Any:
    return pytest.param(where, marks=pytest.mark.slow)


class Signalled(Callback):
    """Sends the process a signal once, at a moment of the fourth epoch, the second of generation two."""

    def __init__(self, number: int, where: str) -> None:
        self.number, self.where = number, where

    def send(self, trainer: Trainer, here: str, epoch: int = 3) -> None:
        if here == self.where and trainer.current_epoch == epoch:
            self.where = "sent"
            os.kill(os.getpid(), self.number)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if args[-1] == 1:
            self.send(trainer, "batch")

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.send(trainer, "validation")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.send(trainer, "epoch end")


class LastWord(Callback):
    """Is killed some time after the signal, as the cluster does."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 4:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    folder: Path,
    seed: int,
    number: int = 0,
    where: str = "",
    checkpoint: Any = None,
    slurm: bool = False,
    name: str = "layer",
) -> None:
    seed_everything(seed)
    reset: Any = get_reset(name)
    if where == "redraw":
        draw, signalled = reset.draw, Signalled(number, where)

        def interrupted(stand_in: Any) -> None:
            draw(stand_in)
            signalled.send(callback.trainer, "redraw", epoch=4)  # type: ignore[attr-defined]

        reset.draw = interrupted
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0, reset=reset)
    callbacks: list[Any] = [callback, Signalled(number, where)]
    if slurm:
        callbacks += [LastWord()] if number else []
        callbacks += [ModelCheckpoint(folder / "own")]
    else:
        callbacks += [OnExceptionCheckpoint(folder, "terminated")]
    trainer = make_trainer(
        folder,
        max_epochs=6,
        callbacks=callbacks,
        enable_checkpointing=True,
        plugins=[SLURMEnvironment(auto_requeue=True)] if slurm else None,
    )
    callback.trainer = trainer  # type: ignore[attr-defined]
    module = Classifier()
    loader = loaders.StatefulDataLoader(data(), batch_size=8, shuffle=True)
    trainer.fit(module, loader, val_loader(), ckpt_path=checkpoint)
    torch.save(weights(module), folder / "final.pt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The final weights of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_a_process(train, folder, 0) == 0
    return torch.load(folder / "final.pt")


@pytest.mark.compat(
    "Checkpoints and interruptions", "SIGTERM, with OnExceptionCheckpoint", "works", note="resumes bit for bit"
)
@pytest.mark.parametrize("where", ["batch", slow("validation"), slow("epoch end")])
def test_a_terminated_run_goes_on_bit_for_bit(tmp_path: Path, whole: dict[str, torch.Tensor], where: str) -> None:
    in_a_process(train, tmp_path, 0, signal.SIGTERM, where)
    assert not (tmp_path / "final.pt").exists(), "the training ended before its time"
    assert in_a_process(train, tmp_path, 99, 0, "", tmp_path / "terminated.ckpt") == 0
    assert same(whole, torch.load(tmp_path / "final.pt")) == []


@pytest.mark.compat(
    "Checkpoints and interruptions",
    "SLURM's requeue (SIGUSR1)",
    "works",
    note="resumes bit for bit; a training batch in which the signal came is left out, and named at resume",
)
@pytest.mark.parametrize("where", [slow("batch"), "validation", slow("epoch end"), "redraw"])
def test_a_requeued_job_goes_on_bit_for_bit(tmp_path: Path, whole: dict[str, torch.Tensor], where: str) -> None:
    assert_requeued(tmp_path, whole, where, "layer")


@pytest.mark.slow
def test_a_signal_within_a_redraw_that_builds_on_the_old_weights(tmp_path: Path) -> None:
    """Shrinking twice what was shrunk already would be another network."""
    (tmp_path / "whole").mkdir()
    assert in_a_process(train, tmp_path / "whole", 0, 0, "", None, False, "shrink_perturb") == 0
    (tmp_path / "requeued").mkdir()
    assert_requeued(tmp_path / "requeued", torch.load(tmp_path / "whole" / "final.pt"), "redraw", "shrink_perturb")


def assert_requeued(tmp_path: Path, whole: dict[str, torch.Tensor], where: str, reset: str) -> None:
    # A cluster of one: the job's own variables, and a scheduler that writes down what it is asked for.
    scheduler = tmp_path / "bin" / "scontrol"
    scheduler.parent.mkdir()
    scheduler.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scheduler.chmod(scheduler.stat().st_mode | stat.S_IEXEC)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    job |= {"SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost", "PATH": f"{scheduler.parent}:{os.environ['PATH']}"}
    in_a_process(with_environment, job, train, tmp_path, 0, signal.SIGUSR1, where, None, True, reset)
    assert (tmp_path / "asked").read_text().split() == ["requeue", "7"]
    assert not (tmp_path / "final.pt").exists()
    # No path is given: on SLURM, Lightning finds the job's checkpoint itself.
    assert in_a_process(with_environment, job, train, tmp_path, 99, 0, "", None, True, reset) == 0
    assert same(whole, torch.load(tmp_path / "final.pt")) == []


def with_environment(variables: dict[str, str], function: Any, *arguments: Any) -> None:
    os.environ.update(variables)
    function(*arguments)
