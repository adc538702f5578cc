"""Lightning starts the processes itself: by spawn, or by running the user's script again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.callback.modules import same
from tests.distributed.test_sharded import LAYERS, single

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "size"), [("ddp_spawn", 2), ("ddp_spawn", 4), ("ddp", 2), ("ddp", 4), ("fsdp", 2)]
)
def test_a_script_that_is_started_once(tmp_path: Path, strategy: str, size: int) -> None:
    command = [sys.executable, "-m", "tests.distributed.script", strategy, str(size), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(size)]
    expected = single("kels")
    for result in ranks:
        assert same(result["mask"], expected["mask"]) == []
        for weights, others in zip(result["after redraw"], ranks[0]["after redraw"], strict=True):
            assert same(weights, others) == [], "every rank has the same network after each redraw"
        assert result["history"] == ranks[0]["history"]
        pairs = list(zip(result["after redraw"], expected["after redraw"], strict=True))
        for weights, others in pairs[1:]:  # whatever order the data came in, redrawn values are the same
            for name in LAYERS:
                redrawn = ~expected["mask"][name]
                assert torch.equal(weights[name][redrawn], others[name][redrawn])
