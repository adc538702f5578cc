"""Sweeps: where they are written, what a second call does, and that one job does not concern the others."""

import json
import shutil
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lightning_ke.app.folders import safe_name
from lightning_ke.app.preflight import check_one_process
from lightning_ke.app.train import config_dir
from tests.app.commands import composed
from tests.app.processes import TINY, die_once, differences, ke_train

SWEEP = ["-m", *TINY, "generations.epochs=1", "split.rate=0.3,0.8", "seed=0,1"]


def jobs(folder):
    """The folder of each job, by rate and seed."""
    found = {}
    for path in Path(folder, "multirun", "smoke").glob("*/config.yaml"):
        text = path.read_text()
        rate = next(rate for rate in (0.3, 0.8) if f"rate: {rate}" in text)
        found[rate, int("\nseed: 1" in text)] = path.parent
    return found


def states(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in Path(folder).rglob("status.json")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted sweep."""
    folder = tmp_path_factory.mktemp("whole")
    code, printed = ke_train(folder, *SWEEP)
    assert code == 0, printed
    assert "multirun/smoke: 4 finished." in printed
    return folder


def test_each_job_is_the_run_that_it_would_be_alone(whole, tmp_path):
    found = jobs(whole)
    assert set(found) == {(0.3, 0), (0.3, 1), (0.8, 0), (0.8, 1)}
    code, printed = ke_train(tmp_path, *TINY, "generations.epochs=1", "split.rate=0.8", "seed=1", "hydra.run.dir=out")
    assert code == 0, printed
    assert differences(tmp_path / "out", found[0.8, 1]) == []
    assert differences(tmp_path / "out", found[0.8, 0]) != []


def test_the_same_sweep_again_does_nothing(whole):
    before = {path: path.stat().st_mtime_ns for job in jobs(whole).values() for path in job.rglob("*.*")}
    code, printed = ke_train(whole, *SWEEP)
    assert code == 0, printed
    assert printed.count("is finished already, skipped.") == 4
    after = {path: path.stat().st_mtime_ns for path in before}
    assert [path.name for path in before if before[path] != after[path]] == ["ke-train.log"] * 4


def test_a_sweep_that_is_killed_half_way_goes_on_bit_for_bit(whole, tmp_path):
    dies = f"+callbacks.die={{_target_:{__name__}.dying,seed:${{seed}},rate:${{split.rate}}}}"
    code, _ = ke_train(tmp_path, *SWEEP, dies)
    assert code == -signal.SIGKILL
    assert sorted(status["state"] for status in states(tmp_path).values()) == ["finished", "finished", "running"]
    code, printed = ke_train(tmp_path, *SWEEP, dies)
    assert code == 0, printed
    assert printed.count("is finished already, skipped.") == 2
    assert printed.count("goes on where it was interrupted.") == 1
    found, expected = jobs(tmp_path), jobs(whole)
    assert set(found) == set(expected)
    for job, folder in found.items():
        assert differences(expected[job], folder) == []


def dying(seed, rate):
    """A callback that kills the third job in its second epoch."""
    from lightning.pytorch import Callback

    class Dying(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.current_epoch == 1 and (seed, rate) == (0, 0.8):
                die_once(trainer.default_root_dir)

    return Dying()


def test_a_failed_job_is_marked_and_leaves_the_others_alone(whole, tmp_path):
    """Two mistakes, before and in the middle of training, and a process left in disorder by each."""
    disorder = f"+callbacks.die={{_target_:{__name__}.disorderly,seed:${{seed}},rate:${{split.rate}}}}"
    rates = [*SWEEP[:-2], "split.rate=-1,0.3,0.8", "seed=0,1"]
    code, printed = ke_train(tmp_path, *rates, disorder)
    assert code == 1, printed
    failed = {name: status["error"] for name, status in states(tmp_path).items() if status["state"] == "failed"}
    assert sorted(failed.values()) == [
        "Expected argument `rate` to be in (0, 1), but got -1. It is the share of what is fit, such as 0.5.",
        "Expected argument `rate` to be in (0, 1), but got -1. It is the share of what is fit, such as 0.5.",
        "ZeroDivisionError: division by zero",
    ]
    assert "multirun/smoke: 3 failed, 3 finished." in printed
    for name, error in failed.items():
        assert f"failed: {name}: {error}" in printed
    assert "Error executing job" not in printed  # Hydra has nothing to add
    found, expected = jobs(tmp_path), jobs(whole)
    for job in ((0.3, 1), (0.8, 0), (0.8, 1)):
        assert differences(expected[job], found[job]) == []


def disorderly(seed, rate):
    """A callback that changes what is global and fails in one job."""
    import random

    import torch
    from lightning.pytorch import Callback

    class Disorderly(Callback):
        def on_train_epoch_end(self, trainer, *_):
            if (seed, rate) == (0, 0.3):
                torch.set_default_dtype(torch.float64)
                torch.use_deterministic_algorithms(True)
                torch.set_grad_enabled(False)
                random.seed(7)
                1 / 0  # noqa: B018

    return Disorderly()


def test_another_configuration_does_not_go_into_the_folder_of_a_job(whole, tmp_path):
    """A file of the configuration has changed between two calls, which the name of the folder does not show."""
    shutil.copytree(whole / "multirun", tmp_path / "multirun")
    saved = jobs(tmp_path)[0.3, 1] / "config.yaml"
    saved.write_text(saved.read_text().replace("lr: 0.1", "lr: 0.2"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file() and path.suffix != ".log"}
    code, printed = ke_train(tmp_path, *SWEEP)
    assert code == 1
    assert printed.count("is finished already, skipped.") == 3
    line = f"failed: {saved.parent.name}: Expected `optimizer.lr=0.2` as in {saved}, but got `optimizer.lr=0.1`."
    assert line in printed[printed.index("multirun/smoke: ") :]
    del before[tmp_path / "multirun" / "smoke" / "multirun.yaml"]
    assert before == {path: path.read_bytes() for path in before}


def test_a_job_that_trained_nothing_takes_another_configuration(whole, tmp_path):
    """What it was refused for at its start has been put right in a file."""
    shutil.copytree(whole / "multirun", tmp_path / "multirun")
    folder = jobs(tmp_path)[0.3, 1]
    saved = folder / "config.yaml"
    saved.write_text(saved.read_text().replace("lr: 0.1", "lr: 0.2"))
    for path in ("results.json", "tables.md", "history.png", "slim.safetensors", "checkpoints", "log"):
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    (folder / "status.json").write_text(json.dumps({"state": "failed", "error": "so", "folder": str(folder)}))
    code, printed = ke_train(tmp_path, *SWEEP)
    assert code == 0, printed
    assert differences(jobs(whole)[0.3, 1], folder) == []


@pytest.mark.parametrize("several", ["trainer.devices=2", "trainer.strategy=ddp", "trainer.devices=[0,1]"])
def test_several_devices_are_refused_before_the_first_job(tmp_path, several):
    code, printed = ke_train(tmp_path, *SWEEP, several)
    assert code == 2
    assert printed.startswith("ke-train: Expected a sweep (-m) of runs on one device each, but got trainer.devices=")
    assert len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "multirun").exists()


def test_several_devices_are_fine_where_something_else_starts_the_processes():
    config = composed("trainer.devices=2", "trainer.strategy=ddp")
    check_one_process(config, {"tasks_per_node": 2})
    check_one_process(composed("trainer.devices=auto", "trainer.accelerator=cpu"))
    with pytest.raises(ValueError, match=r"but got trainer\.devices=auto"):  # there may be several
        check_one_process(composed("trainer.devices=auto"))
    with pytest.raises(ValueError, match="one device each"):
        check_one_process(config, {"tasks_per_node": 1})


@pytest.mark.parametrize(("mode", "direction"), [("max", "maximize"), ("min", "minimize")])
def test_a_sweeper_looks_for_less_where_less_is_better(mode, direction):
    file = OmegaConf.load(config_dir() / "hydra" / "sweeper" / "rates.yaml")
    assert OmegaConf.create({"mode": mode, "hydra": {"sweeper": file}}).hydra.sweeper.direction == direction


def test_names_are_stable_short_and_safe():
    assert safe_name(["b=1", "a=2"]) == safe_name(["a=2", "b=1"]) == "a=2,b=1"
    assert safe_name(["experiment=demo", "a=2"], "demo") == "a=2"
    assert safe_name(["experiment=demo"], "demo") == "defaults"
    assert safe_name(["experiment=paper/flowers102", "seed=1"], "paper-flowers102") == "seed=1"
    names = {safe_name([f"path=/a/b c/{'x' * n}", "+new=[1,2]", "text='ä:*?'"]) for n in range(300)}
    assert len(names) == 300
    for name in names:
        assert len(name.encode()) < 120
        assert not set(name) & set("/\\:*?\"'<>| []ä")
