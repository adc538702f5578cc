"""Two machines, as far as the network can tell, of which one is cut off in the middle of the training."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callback.modules import same
from tests.distributed import programs
from tests.distributed.world import run_world

DEVICE, ADDRESSES = "ke-test", ("10.213.77.1", "10.213.77.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces joined by a pair of virtual devices."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces take root and the program `ip` (iproute2)")
    names = [f"ke-test-{os.getpid()}-{rank}" for rank in range(2)]
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
            ip("-n", names[0], "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine gives no network namespaces: {error.stderr.strip()}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", DEVICE)
            ip("-n", name, "link", "set", DEVICE, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in made:
            ip("netns", "delete", name)


@pytest.mark.slow
@pytest.mark.compat(
    "Checkpoints and interruptions",
    "a process that loses its network (DDP)",
    "works",
    note="ends when the strategy's `timeout` is over, says what to do, and resumes bit for bit",
)
def test_a_rank_that_is_cut_off_ends_the_run_clearly_and_it_resumes(tmp_path: Path, namespaces: list[str]) -> None:
    arguments = (tmp_path / "cut", namespaces, DEVICE, ADDRESSES[0], 40.0)
    for ended_by, said in run_world(2, programs.train_in_namespaces, *arguments):
        assert ended_by, "the run must not come to its end"
        assert any('Start it again with `ckpt_path="last"`' in sentence for sentence in said), ended_by
    checkpoints = sorted(path.name for path in (tmp_path / "cut").glob("*.ckpt"))
    assert checkpoints == ["epoch=0.ckpt", "epoch=1.ckpt"]
    options = {"split": "kels"}
    whole = run_world(2, programs.train_noisy, tmp_path / "whole", "ddp", 2, options)
    again = run_world(2, programs.train_noisy, tmp_path / "again", "ddp", 2, options, tmp_path / "cut" / "epoch=1.ckpt")
    for one, other in zip(whole, again, strict=True):
        assert same(one["weights"], other["weights"]) == []
        assert one["history"] == other["history"]
