"""`ke-train logger=wandb`: a sweep in one process, each job a run of its own, all in one group."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_ke
from tests.report.offline import needs_wandb, read_back

pytestmark = [needs_wandb, pytest.mark.slow]

SHORT = [
    "experiment=smoke",
    "generations.count=2",
    "generations.epochs=1",
    "warmup=0",
    "logger=wandb",
    "trainer.enable_progress_bar=false",
    *(f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")),
]


def train(folder, *arguments, again=None, **world):
    """Run `ke-train` in a folder with a world of its own; `again` is a run that goes on."""
    home = dict.fromkeys(("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"), str(folder))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    path = {"PYTHONPATH": str(Path(lightning_ke.__file__).parents[1])}
    begin = SHORT if again is None else [f"resume={again}"]
    command = [sys.executable, "-m", "lightning_ke.app.train", *begin, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=kept | home | path | world
    )


def test_three_jobs_are_three_runs_and_every_figure_is_there(tmp_path):
    sweep = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}", "split.rate=0.3,0.5,0.8", "-m"]
    done = train(tmp_path, *sweep, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr[-3000:]
    found = [read_back(tmp_path / "sweep" / str(number)) for number in range(3)]
    assert len({run.run["run_id"] for run in found}) == 3
    for number, (run, rate) in enumerate(zip(found, (0.3, 0.5, 0.8), strict=True)):
        folder = tmp_path / "sweep" / str(number)
        assert run.run["run_id"] == (folder / "wandb" / "id.txt").read_text()
        assert (run.run["run_group"], run.run["job_type"]) == ("sweep", "kels")
        assert run.run["tags"] == ["smoke", "embedded", "kels"]
        assert (run.config["ke"]["rate"], run.config["split"]["rate"], run.exit_code) == (rate, rate, 0)
        results = json.loads((folder / "results.json").read_text())
        rows = [row for row in run.rows if "ke/generation_end/fit/val_acc" in row]
        assert [row["ke/generation"] for row in rows] == [1, 2]
        for side in ("dense", "fit"):
            logged = [row[f"ke/generation_end/{side}/val_acc"] for row in rows]
            assert logged == [record[side]["val_acc"] for record in results["history"]]
        for network, scores in results["networks"].items():
            assert {key: run.summary[f"networks/{network}/{key}"] for key in scores} == scores
        files = {kind: [file for _, held in made for file in held] for kind, made in run.artifacts.items()}
        assert files["report"] == ["history.png", "results.json", "tables.md"]
        assert files["model"] == ["slim.safetensors"]
        assert sorted(row[0] for table in run.tables for row in table["data"]) == [1, 2]


def test_a_job_that_fails_is_a_failed_run_and_a_baseline_is_typed_as_one(tmp_path):
    # Lightning looks for this metric in the middle of the training.
    broken = ["callbacks=early_stopping", "callbacks.early_stopping.monitor=no_such_metric"]
    done = train(tmp_path, "hydra.run.dir=run", "generations.count=1", *broken, WANDB_MODE="offline")
    assert "no_such_metric" in done.stderr
    found = read_back(tmp_path / "run")
    assert found.run["job_type"] == "baseline"
    assert "run_group" not in found.run
    assert found.exit_code == 1


def test_a_run_that_goes_on_is_found_by_the_same_names(tmp_path):
    sweep = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=job", "-m"]
    assert train(tmp_path, *sweep, WANDB_MODE="offline").returncode == 0
    job = tmp_path / "sweep" / "job"
    before = read_back(job).run
    (earlier,) = job.glob("wandb/offline-run-*")
    shutil.rmtree(earlier)
    done = train(tmp_path, "generations.count=3", again=job, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr[-3000:]
    after = read_back(job).run
    for name in ("run_id", "run_group", "job_type", "tags", "display_name"):
        assert after[name] == before[name]


def test_without_a_login_and_not_offline_one_line_says_what_to_do(tmp_path):
    done = train(tmp_path, "hydra.run.dir=run")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ke-train:")]
    assert "Run `wandb login`, or set WANDB_MODE=offline" in line
    assert "Traceback" not in done.stderr
