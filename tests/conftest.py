"""What every test may count on: real images where there are any, and that no test leaves anything behind."""

import os
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import hypothesis
import pytest
import torch

# Sets environment variables when it is first imported, which no test leaks.
import_module("lightning.pytorch")
# One core per test process: xdist runs several of them side by side.
torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "tests",
    deadline=None,  # nothing is proved by the speed of a shared machine
    max_examples=25,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("thorough", parent=hypothesis.settings.get_profile("tests"), max_examples=300)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))

_NO_IMAGES = (
    "KE_DATA is not set: the tests on real photographs did not run. "
    "Set it to the folder that holds unpack.py and flowers102_mini20_s73.npz."
)


def _world() -> dict[str, object]:
    """Everything global that a test could leave changed."""
    return {
        "environment variables": {
            # pytest and its plugins keep their own books in the environment, and so does torch's compiler, which the
            # first step of any optimizer imports, and scikit-learn when it is imported.
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTEST_", "HYPOTHESIS_", "TORCHINDUCTOR_", "KMP_"))
        },
        "process group": torch.distributed.is_available() and torch.distributed.is_initialized(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "sys.path": list(sys.path),
        "working directory": str(Path.cwd()),
    }


@pytest.fixture(autouse=True)
def leaves_nothing_behind(tmp_path, monkeypatch):
    """Fail a test that leaves global state changed; files go to an empty folder, seeds are taken back."""
    random.seed(0)
    torch.manual_seed(0)
    home = Path.cwd()
    os.chdir(tmp_path)  # a Trainer without a folder of its own writes to the current one
    before = _world()
    yield
    monkeypatch.undo()
    for key in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(key, None)
    after = _world()
    os.chdir(home)
    leaked = [name for name in before if before[name] != after[name]]
    if "process group" in leaked:
        torch.distributed.destroy_process_group()
    assert not leaked, f"this test leaves changed: {', '.join(leaked)}"


@pytest.fixture(scope="session")
def flowers_mini(tmp_path_factory):
    """A folder of real photographs: 20 flowers, 200 / 200 / 400 images, as ROOT/{train,val,test}/CLASS/NAME.jpg."""
    if "KE_DATA" not in os.environ:
        pytest.skip(_NO_IMAGES)
    source = Path(os.environ["KE_DATA"])
    folder = tmp_path_factory.mktemp("flowers_mini")
    command = [sys.executable, source / "unpack.py", source / "flowers102_mini20_s73.npz", folder, "folder"]
    subprocess.run(command, check=True)
    return folder


def pytest_terminal_summary(terminalreporter):
    """Say loudly that tests on real photographs are missing."""
    if "KE_DATA" not in os.environ:
        terminalreporter.write_sep("!", "no real photographs", red=True)
        terminalreporter.write_line(_NO_IMAGES, red=True)
