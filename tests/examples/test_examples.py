"""The examples do what they say."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.app.commands import python

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_quickstart_is_short_and_runs(tmp_path):
    code = (EXAMPLES / "quickstart.py").read_text()
    assert len(code.splitlines()) <= 40
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    generations = [line.split() for line in done.stdout.splitlines() if line[:2] in ("1 ", "2 ", "3 ")]
    assert len(generations) == 3
    assert float(generations[-1][1]) > 0.5
    assert "operations" in done.stdout


@pytest.fixture
def own_module(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["own_module.py"])
    return runpy.run_path(str(EXAMPLES / "own_module.py"), run_name="own_module")


def test_own_module_knows_nothing_of_generations(own_module):
    text = (EXAMPLES / "own_module.py").read_text()
    module = text[text.index("class ResidualBlock") : text.index("def main")]
    assert "lightning_ke" not in module
    assert "KnowledgeEvolution" not in module
    assert "generation" not in module


def test_own_module_s_schedule_starts_over_with_each_generation(own_module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evolution = own_module["main"](generations=2, epochs=2)
    assert [record["epochs"] for record in evolution.history] == [2, 2]
    for record in evolution.history:
        # Two epochs see the beginning of the cycle (a 25th of its peak) and what comes after the peak.
        assert record["lr"]["first"] == pytest.approx(5e-3 / 25)
        assert record["dense"]["val_acc"] > 0.2


def test_a_slim_network_is_fine_tuned_from_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(EXAMPLES / "finetune_slim.py"), run_name="finetune_slim")
    slim, before, after = example["main"]()
    assert 0.2 < before < after
    assert after > 0.5
    dense = sum(parameter.numel() for parameter in example["build"]().parameters())
    assert sum(parameter.numel() for parameter in slim.net.parameters()) < 0.6 * dense
    assert (tmp_path / "slim.safetensors").is_file()


def test_headings_are_learnt_and_the_slim_network_knows_them_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (EXAMPLES / "headings.py").read_text()
    assert len(code.splitlines()) <= 40
    evolution = runpy.run_path(str(EXAMPLES / "headings.py"), run_name="headings")["main"](generations=2, epochs=4)
    assert [record["epochs"] for record in evolution.history] == [4, 4]
    first, last = evolution.history
    assert last["dense"]["val_mae"] < 60, "chance is 90 degrees"
    assert last["fit"]["val_mae"] < min(75, first["fit"]["val_mae"])


def test_a_hugging_face_network_is_evolved_and_read_from_its_file(tmp_path):
    pytest.importorskip("transformers")
    done = python((EXAMPLES / "hugging_face.py").read_text(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Linear(in_features=32, out_features=2" in done.stdout
