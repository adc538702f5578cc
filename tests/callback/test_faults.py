"""Broken checkpoints are told apart and do no damage; a full disk costs no checkpoint that was there."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from lightning_ke import KnowledgeEvolution, load_mask
from tests.callback.modules import Classifier, make_trainer, same, train_loader, val_loader, weights

compat = pytest.mark.compat


def train(folder: Path, checkpoint: Path | None = None, epochs: int = 4, **kwargs: Any) -> Classifier:
    seed_everything(0 if checkpoint is None else 99)
    module = kwargs.pop("module", Classifier)()
    callbacks = [
        KnowledgeEvolution(epochs_per_generation=2, seed=0),
        ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1),
        *kwargs.pop("callbacks", []),
    ]
    trainer = make_trainer(folder, max_epochs=epochs, callbacks=callbacks, enable_checkpointing=True, **kwargs)
    trainer.fit(module, train_loader(), val_loader(), ckpt_path=checkpoint)
    return module


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of a run."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        del os.environ[name]
    return folder


def truncated(good: Path, bad: Path) -> None:
    bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])


def empty(good: Path, bad: Path) -> None:
    bad.write_bytes(b"")


def no_checkpoint_at_all(good: Path, bad: Path) -> None:
    bad.write_text("epoch,loss\n0,1.5\n")


def of_somebody_else(good: Path, bad: Path) -> None:
    state = torch.load(good, weights_only=True)
    state["callbacks"] = {"SomebodyElse": {"answer": 42}}
    torch.save(state, bad)


def of_a_later_version(good: Path, bad: Path) -> None:
    state = torch.load(good, weights_only=True)
    state["callbacks"]["KnowledgeEvolution"]["version"] = 1000
    torch.save(state, bad)


def of_an_older_version(good: Path, bad: Path) -> None:
    state = torch.load(good, weights_only=True)
    del state["callbacks"]["KnowledgeEvolution"]["version"]
    torch.save(state, bad)


def with_code_in_it(good: Path, bad: Path) -> None:
    bad.write_bytes(pickle.dumps(Path(good)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            truncated,
            r"Expected `.*bad\.ckpt` to be a whole checkpoint, but it cannot be read",
            marks=compat("Checkpoints and interruptions", "a checkpoint that is cut off or empty", "refused"),
        ),
        (empty, r"Expected `.*bad\.ckpt` to be a whole checkpoint, but it cannot be read"),
        (no_checkpoint_at_all, r"Expected `.*bad\.ckpt` to be a whole checkpoint, but it cannot be read"),
        (with_code_in_it, r"Expected `.*bad\.ckpt` to be a whole checkpoint, but it cannot be read"),
        pytest.param(
            of_somebody_else,
            r"it holds no state of one",
            marks=compat(
                "Checkpoints and interruptions", "a checkpoint of a run without KnowledgeEvolution", "refused"
            ),
        ),
        pytest.param(
            of_an_older_version,
            r"state version 1, but got version None.*the version of lightning_ke that wrote it",
            marks=compat("Checkpoints and interruptions", "a checkpoint of another version of the state", "refused"),
        ),
        (of_a_later_version, r"state version 1, but got version 1000.*the version of lightning_ke that wrote it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_checkpoint_does_no_damage(
    tmp_path: Path, whole: Path, spoil: Any, message: str, record_property: Any
) -> None:
    good, bad, module = whole / "epoch=1.ckpt", tmp_path / "bad.ckpt", Classifier()
    spoil(good, bad)
    before = {path.name: path.read_bytes() for path in (*whole.iterdir(), bad) if path.is_file()}
    initial = weights(module)
    with pytest.raises(ValueError, match=message) as caught:
        train(tmp_path / "again", bad, module=lambda: module)
    assert before == {path.name: path.read_bytes() for path in (*whole.iterdir(), bad) if path.is_file()}
    assert not list((tmp_path / "again").glob("*.ckpt"))
    if spoil in (truncated, empty, no_checkpoint_at_all, with_code_in_it):
        assert same(initial, weights(module)) == [], "nothing was loaded"
    assert "configure_optimizers" not in vars(module)
    # The module and the good checkpoint are as usable as before.
    assert (
        same(
            weights(train(tmp_path / "good", good)), weights(train(tmp_path / "once more", good, module=lambda: module))
        )
        == []
    )
    record_property("refusal", str(caught.value).replace(str(bad), "PATH"))


@pytest.mark.parametrize("spoil", [truncated, empty, no_checkpoint_at_all, of_somebody_else])
def test_a_mask_of_a_broken_checkpoint(tmp_path: Path, whole: Path, spoil: Any) -> None:
    spoil(whole / "epoch=1.ckpt", tmp_path / "bad.ckpt")
    with pytest.raises((ValueError, RuntimeError, EOFError, pickle.UnpicklingError)):
        load_mask(tmp_path / "bad.ckpt")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds a little more than one checkpoint."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


class Filling(Classifier):
    """Fills the disk before the third checkpoint is written."""

    def __init__(self, disk: Path) -> None:
        super().__init__()
        self.disk = disk

    def on_train_epoch_start(self) -> None:
        if self.trainer.current_epoch == 2:
            size = os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize
            (self.disk / "ballast").write_bytes(bytes(max(0, size - 20_000)))


@compat(
    "Checkpoints and interruptions",
    "a disk that is full while a checkpoint is written",
    "works",
    note="the run ends with the system's error; the checkpoint before it loads",
)
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, small_disk: Path, whole: Path) -> None:
    with pytest.raises((OSError, RuntimeError)):
        train(small_disk, module=lambda: Filling(small_disk))
    (small_disk / "ballast").unlink()
    assert (small_disk / "epoch=1.ckpt").exists()
    resumed = train(tmp_path / "resumed", small_disk / "epoch=1.ckpt")
    assert same(weights(resumed), torch.load(whole / "epoch=3.ckpt", weights_only=True)["state_dict"]) == []


class Failing(Classifier):
    """Fails once, where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def fail(self, here: str) -> None:
        if here == self.where and self.trainer.current_epoch == 2:
            raise RuntimeError("a passing fault")

    def on_train_epoch_start(self) -> None:
        self.fail("right after a redraw")

    def on_validation_epoch_end(self) -> None:
        self.fail("in a validation")

    def on_train_epoch_end(self) -> None:
        self.fail("at the end of an epoch")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.fail("in a batch")


@compat(
    "Checkpoints and interruptions",
    "OnExceptionCheckpoint",
    "works",
    note="resumes bit for bit; a training batch in which the exception came is left out, and named at resume",
)
@pytest.mark.parametrize("where", ["right after a redraw", "in a validation", "at the end of an epoch"])
def test_a_checkpoint_written_on_an_exception_goes_on_bit_for_bit(tmp_path: Path, whole: Path, where: str) -> None:
    with pytest.raises(RuntimeError, match="a passing fault"):
        train(tmp_path, module=lambda: Failing(where), callbacks=[OnExceptionCheckpoint(tmp_path, "fault")])
    resumed = train(tmp_path / "again", tmp_path / "fault.ckpt")
    assert same(weights(resumed), torch.load(whole / "epoch=3.ckpt", weights_only=True)["state_dict"]) == []


def test_a_batch_that_is_left_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a passing fault"):
        train(tmp_path, module=lambda: Failing("in a batch"), callbacks=[OnExceptionCheckpoint(tmp_path, "fault")])
    with pytest.warns(UserWarning, match="written within a training batch.*The batch is left out"):
        train(tmp_path / "again", tmp_path / "fault.ckpt")
