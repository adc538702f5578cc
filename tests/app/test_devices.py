"""`ke-train` on two devices (processes on the CPU), which Lightning starts from the same command line."""

import json

import pytest

from tests.app.processes import TINY, differences
from tests.app.test_launchers import ke_train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


def test_two_processes_write_one_run_and_it_can_be_made_longer(tmp_path):
    done = ke_train(tmp_path, *TINY, *TWO, "hydra.run.dir=whole")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert [record["generation"] for record in results["history"]] == [1, 2]
    # Both processes count: 4 epochs of 3 batches of 16 images each; a backward pass costs nearly twice a forward pass.
    operations = results["networks"]["dense"]["operations"]
    assert 2.8 < results["training_operations"] / (operations * 4 * 3 * 16 * 2) < 3
    assert done.stdout.count("Chosen on validation") == 1

    done = ke_train(tmp_path, *TINY, *TWO, "generations.count=1", "hydra.run.dir=longer")
    assert done.returncode == 0, done.stderr
    done = ke_train(tmp_path, "resume=longer", "generations.count=2")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "longer").glob("*-1-generations.*"):
        path.unlink()
    assert differences(tmp_path / "whole", tmp_path / "longer") == []
