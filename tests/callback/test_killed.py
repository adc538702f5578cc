"""A training process that is really killed, at the worst moments, and taken up by another."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ke import KnowledgeEvolution
from lightning_ke.resets import get_reset
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader, weights

EPOCHS, LENGTH = 6, 2


def die(folder: Path, phase: str) -> None:
    """Leave word of where it happened, and be killed as a cluster kills."""
    (folder / "died-in").write_text(phase)
    os.kill(os.getpid(), signal.SIGKILL)


class InStep(Callback):
    """Dies in the fourth epoch, in a training or in a validation batch."""

    def __init__(self, folder: Path, phase: str) -> None:
        self.folder, self.phase = folder, phase

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.phase == "batch" and trainer.current_epoch == 3 and trainer.global_step % 3 == 2:
            die(self.folder, self.phase)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self.phase == "validation" and trainer.current_epoch == 3:
            die(self.folder, self.phase)


class Dying(KnowledgeEvolution):
    """Dies before it opens the second generation, with the first one closed and saved."""

    folder: Path

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == LENGTH:
            die(self.folder, "closed")
        super().on_train_epoch_start(trainer, pl_module)

    @property
    def state_key(self) -> str:
        return "KnowledgeEvolution"


def dying_reset(folder: Path) -> Any:
    """The layer's own reset, until it dies with half of the network redrawn."""
    reset = get_reset("layer")
    draw, drawn = reset.draw, []

    def half(stand_in: Any) -> None:
        draw(stand_in)
        drawn.append(stand_in)
        if len(drawn) == 2:
            die(folder, "redraw")

    reset.draw = half  # type: ignore[method-assign]
    return reset


class HalfWritten(TorchCheckpointIO):
    """Dies with half of the fourth epoch's checkpoint on disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if checkpoint["epoch"] < 3:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).write_bytes(content.getvalue()[: content.tell() // 2])
        die(self.folder, "saving")


def train(folder: Path, phase: str | None, checkpoint: Path | None = None) -> tuple[Classifier, KnowledgeEvolution]:
    seed_everything(0 if checkpoint is None else 99)
    reset: Any = dying_reset(folder) if phase == "redraw" else "layer"
    kind = Dying if phase == "closed" else KnowledgeEvolution
    callback = kind(epochs_per_generation=LENGTH, seed=0, reset=reset)
    if isinstance(callback, Dying):
        callback.folder = folder
    plugins = [HalfWritten(folder)] if phase == "saving" else None
    saver = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    callbacks = [callback, saver] + ([InStep(folder, phase)] if phase in ("batch", "validation") else [])
    module = Classifier()
    trainer = make_trainer(folder, max_epochs=EPOCHS, callbacks=callbacks, enable_checkpointing=True, plugins=plugins)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
    return module, callback


def in_a_process(function: Callable[..., Any], *arguments: Any) -> int | None:
    # Forked from a server that has imported all this and trained nothing: autograd does not survive a plain fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def last_readable(folder: Path) -> Path:
    """The newest checkpoint that is whole."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        try:
            torch.load(path, weights_only=True)
        except (RuntimeError, OSError):  # truncated
            continue
        return path
    raise AssertionError("no checkpoint survived")


@pytest.mark.compat(
    "Checkpoints and interruptions", "killed by SIGKILL in any phase", "works", note="resumes bit for bit"
)
@pytest.mark.parametrize("phase", ["batch", "validation", "saving", "closed", "redraw"])
def test_a_killed_run_is_taken_up_bit_for_bit(tmp_path: Path, phase: str) -> None:
    whole, expected = train(tmp_path / "whole", None)
    folder = tmp_path / "killed"
    folder.mkdir()
    assert in_a_process(train, folder, phase) == -signal.SIGKILL
    assert (folder / "died-in").read_text() == phase
    checkpoint = last_readable(folder)
    assert checkpoint.stem == {"closed": "epoch=1", "redraw": "epoch=1"}.get(phase, "epoch=2")
    again, resumed = train(folder, None, checkpoint)
    assert same(weights(whole), weights(again)) == []
    for one, other in zip(expected.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
