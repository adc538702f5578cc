"""All files of a report are replaced, or none is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_ke.report.writing import write_together


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_written_and_replaced(tmp_path):
    write_together({tmp_path / "a": b"1", tmp_path / "new" / "b": b"2"})
    write_together({tmp_path / "a": b"3"})
    assert contents(tmp_path) == {"a": b"3", "new/b": b"2"}


@pytest.mark.parametrize("there", [False, True])
def test_one_that_cannot_be_written_leaves_all_as_they_were(tmp_path, there):
    if there:
        write_together({tmp_path / "a": b"old", tmp_path / "new" / "b": b"old"})
    (tmp_path / "file").write_bytes(b"")
    before = contents(tmp_path)
    with pytest.raises(OSError, match="file"):
        write_together({tmp_path / "a": b"1", tmp_path / "new" / "b": b"2", tmp_path / "file" / "c": b"3"})
    assert contents(tmp_path) == before
    assert (tmp_path / "new").exists() == there


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", place]
    if mount is None or sys.platform != "linux" or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here (that takes root on Linux)")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_loses_nothing(small_disk):
    write_together({small_disk / "a": b"old" * 1000, small_disk / "b": b"old"})
    before = contents(small_disk)
    with pytest.raises(OSError, match="No space left"):
        write_together({small_disk / "a": b"new" * 1000, small_disk / "b": bytes(200_000)})
    assert contents(small_disk) == before
    write_together({small_disk / "a": b"new" * 1000})  # the room is there again
    assert Path(small_disk / "a").read_bytes() == b"new" * 1000
