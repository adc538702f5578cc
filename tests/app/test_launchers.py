"""Every launcher runs a sweep here and gives the numbers of the basic one: joblib, submitit (local and SLURM), ray.

Optuna sweeps here, too.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import lightning_ke
from tests.app.processes import TINY, results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SWEEP = ["-m", *TINY, "generations.epochs=1", "split.rate=0.3,0.8,-1"]
LAUNCHERS = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=30"],
    # One worker, which imports everything once, and no web page.
    "ray": [
        "hydra/launcher=ray",
        *(f"+hydra.launcher.ray.init.{key}" for key in ("num_cpus=1", "include_dashboard=false")),
    ],
}
SLURM_TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "setpriv")


def ke_train(folder, *arguments, **world):
    """Run `ke-train` as a command of its own; launchers start their processes from it."""
    path = os.pathsep.join(filter(None, [str(Path(lightning_ke.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    world = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | world
    command = [sys.executable, "-m", "lightning_ke.app.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=world)


def jobs(folder):
    """What each finished job has come to, by its folder's name."""
    return {path.parent.name: results(path.parent) for path in folder.glob("multirun/smoke/*/results.json")}


@pytest.fixture(scope="module")
def basic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic")
    done = ke_train(folder, *SWEEP)
    assert done.returncode == 1, done.stderr
    return jobs(folder)


def check(folder, basic, launcher, **world):
    """Two jobs with the numbers of the basic launcher, a third that failed alone, and nothing left to do after that."""
    done = ke_train(folder, *SWEEP, *launcher, **world)
    assert done.returncode == 1, done.stderr
    assert "multirun/smoke: 1 failed, 2 finished." in done.stdout
    assert "Expected argument `rate` to be in (0, 1), but got -1." in done.stdout
    found = jobs(folder)
    assert set(found) == set(basic)
    assert all(without_machine(found[name]) == without_machine(basic[name]) for name in basic)
    written = {path: path.stat().st_mtime_ns for path in folder.glob("multirun/smoke/*/results.json")}
    again = ke_train(folder, *SWEEP, *launcher, **world)
    assert again.returncode == 1, again.stderr
    assert written == {path: path.stat().st_mtime_ns for path in written}


def without_machine(content):
    return {key: value for key, value in content.items() if key != "environment"}


@pytest.mark.parametrize("name", [name for name in LAUNCHERS if name != "basic"])
def test_a_launcher_gives_the_numbers_of_the_basic_one(tmp_path, basic, name):
    if find_spec(f"hydra_plugins.hydra_{name}_launcher") is None:
        pytest.skip(f"the launcher is not installed: pip install hydra-{name}-launcher")
    check(tmp_path, basic, LAUNCHERS[name])


def test_optuna_looks_for_the_best_rate_and_finds_its_finished_jobs_again(tmp_path):
    if find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
        pytest.skip("the sweeper is not installed: pip install hydra-optuna-sweeper")
    search = ["-m", "hydra/sweeper=rates", "hydra.sweeper.n_trials=3", *TINY, "generations.epochs=1"]
    done = ke_train(tmp_path, *search)
    assert done.returncode == 0, done.stderr
    scores = {name: content["networks"]["dense"]["val_acc"] for name, content in jobs(tmp_path).items()}
    assert len(scores) == 3
    sweep = tmp_path / "multirun" / "smoke"
    found = OmegaConf.load(sweep / "optimization_results.yaml")
    assert found.best_value == pytest.approx(max(scores.values()))
    best = {
        OmegaConf.load(sweep / name / "config.yaml").split.rate for name in scores if scores[name] == found.best_value
    }
    assert found.best_params["split.rate"] in best
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("multirun/smoke/*/results.json")}
    assert ke_train(tmp_path, *search).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("multirun/smoke/*/results.json")} == written


@pytest.fixture(scope="module")
def slurm():
    """A SLURM cluster of this machine alone; returns the environment that its commands need."""
    missing = [tool for tool in SLURM_TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip("needs root and a SLURM to start (Debian: apt-get install slurm-wlm munge)")
    if find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        pytest.skip("the launcher is not installed: pip install hydra-submitit-launcher")
    # A folder of its own with a short path: that of a socket may have 107 characters.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    world = {"SLURM_CONF": str(folder / "slurm.conf")}
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(slurm_conf(folder))
    munge = [f"--{name}={folder / file}" for name, file in (("key-file", "munge.key"), ("socket", "munge.socket"))]
    munge += [f"--{name}-file={folder / f'munge.{name}'}" for name in ("pid", "log", "seed")]
    daemons = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]]
    running = []
    try:
        with (folder / "daemons.txt").open("w") as log:
            for command in daemons:
                # They end with this process, whatever ends it.
                command = ["setpriv", "--pdeathsig", "TERM", *command]
                running.append(subprocess.Popen(command, env=os.environ | world, stdout=log, stderr=log))
                time.sleep(2)
        if not comes_true(lambda: slurm_says(world, "sinfo", "--noheader", "--format=%t") == "idle"):
            pytest.fail(f"SLURM did not come up: {(folder / 'daemons.txt').read_text()[-2000:]}")
        yield world
    finally:
        # A job outlives the daemon that has started it.
        slurm_says(world, "scancel", "--partition=main")
        comes_true(lambda: not slurm_says(world, "squeue", "--noheader"))
        for process in reversed(running):
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder)


def slurm_says(world, *command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | world)
    return done.stdout.strip()


def comes_true(condition, seconds=120):
    """Wait until something is the case; says whether it is."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(1)
    return condition()


def slurm_conf(folder):
    """The least that one node which is its own controller needs."""
    host, ports = socket.gethostname().split(".")[0], []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    return f"""
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def test_a_sweep_on_slurm_gives_the_numbers_of_the_basic_one(tmp_path, basic, slurm):
    check(tmp_path, basic, ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=30"], **slurm)
    assert list(tmp_path.glob("multirun/smoke/.submitit/*/*_submission.sh"))  # it really went through sbatch


def test_slurm_starts_the_processes_of_a_job_on_two_devices(tmp_path, slurm):
    """What is recommended to whoever asks for a sweep of runs on several devices."""
    two = [*TINY, "generations.epochs=1", "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    done = ke_train(tmp_path, *two, "hydra.run.dir=alone")
    assert done.returncode == 0, done.stderr
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=30", "hydra.launcher.tasks_per_node=2"]
    done = ke_train(tmp_path, "-m", *two, "seed=0", *launcher, **slurm)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = tmp_path.glob("multirun/smoke/*/results.json")
    assert without_machine(results(job.parent)) == without_machine(results(tmp_path / "alone"))
