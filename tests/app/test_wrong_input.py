"""Where nothing can be written, or no more: one clear line, and nothing is lost."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from lightning_ke.app.run_folder import RunFolder
from tests.app.processes import TINY, differences, ke_train


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    code, printed = ke_train(tmp_path, *TINY, "hydra.run.dir=file/out")
    assert code == 2
    assert printed.startswith("ke-train: Expected to be able to write ")
    assert printed.endswith("out', but a part of the path is a file.\n")
    assert len(printed.splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 30 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "ke", disk], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs to be allowed to mount a small disk (root on Linux)")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_without_permission_is_one_line(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, printed = ke_train(small_disk.parent, *TINY, "hydra.run.dir=disk/out")
    assert code == 2
    assert printed.startswith("ke-train: Expected to be able to write ")
    assert printed.endswith("out', but the disk is read-only.\n")


class FillsDisk(Callback):
    """Leaves no room once, at the end of the training or within it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            self.fill(Path(trainer.default_root_dir))

    def on_train_end(self, trainer, *_):
        if self.epoch < 0:
            self.fill(Path(trainer.default_root_dir))

    def fill(self, folder):
        if (folder / "filled").exists():
            return
        (folder / "filled").touch()
        with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass


@pytest.mark.parametrize("epoch", [-1, pytest.param(1, marks=pytest.mark.slow)], ids=["at the end", "while training"])
def test_a_full_disk_loses_nothing(tmp_path, small_disk, epoch):
    code, printed = ke_train(tmp_path, *TINY, "hydra.run.dir=whole")
    assert code == 0, printed
    fills = [f"+callbacks.fill._target_={__name__}.FillsDisk", f"+callbacks.fill.epoch={epoch}"]
    code, printed = ke_train(tmp_path, *TINY, *fills, "hydra.run.dir=disk/out")
    assert code == 2, printed
    assert "Traceback" not in printed
    *_, hint, line = printed.splitlines()
    assert line.startswith("ke-train: Expected to be able to write ")
    assert line.endswith(", but the disk is full.")
    assert hint == f"What was trained is kept. It goes on by: ke-train resume={small_disk / 'out'}"
    assert RunFolder(small_disk / "out").status["state"] in ("running", "failed")
    (small_disk / "out" / "filler").unlink()
    code, printed = ke_train(tmp_path, "resume=disk/out")
    assert code == 0, printed
    (small_disk / "out" / "filled").unlink()
    assert differences(tmp_path / "whole", small_disk / "out") == []
