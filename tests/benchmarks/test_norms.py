"""The same weights are scored with both statistics."""

import json

import pandas as pd
import pytest

from benchmarks import norms
from tests.app.processes import TINY, ke_train


def test_a_finished_run_is_scored_once(tmp_path, monkeypatch):
    code, printed = ke_train(tmp_path, *TINY, "trainer.limit_val_batches=1.0", "hydra.run.dir=out")
    assert code == 0, printed
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["norms", str(tmp_path / "out"), "--results", str(tmp_path)])
        norms.main()
    table = pd.read_csv(tmp_path / "norms.csv")
    assert list(table["run"]) == ["out"]
    last = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["history"][-1]
    assert (table["dense"][0], table["slim"][0]) == pytest.approx((last["dense"]["val_acc"], last["fit"]["val_acc"]))
    assert "| out | " in (tmp_path / "norms.md").read_text(encoding="utf-8")
