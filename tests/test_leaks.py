"""The suite's own guard: a test that leaves something behind fails, a missing folder of photographs is said loudly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

LEAKS = {
    "environment variables": "os.environ['A_LEAK'] = '1'",
    "process group": (
        "torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)"
    ),
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "threads": "torch.set_num_threads(2)",
    "grad mode": "torch.set_grad_enabled(False)",
    "working directory": "os.chdir('..')",
}

UNDONE = """
def test_undone(monkeypatch):
    monkeypatch.setenv('A_LEAK', '1')
    lightning.seed_everything(3)
    with torch.no_grad():
        pass

def test_photographs(flowers_mini):
    pass
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What pytest prints of a suite that leaks, under this suite's conftest and without photographs."""
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    tests = [f"def test_{number}():\n    {statement}\n" for number, statement in enumerate(LEAKS.values())]
    (folder / "test_it.py").write_text("\n".join(["import os\nimport lightning\nimport torch\n", UNDONE, *tests]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    world = {key: value for key, value in os.environ.items() if key != "KE_DATA"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=world).stdout


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_fails_the_test_that_made_it(printed, leak):
    assert f"this test leaves changed: {leak}" in printed


def test_what_is_undone_is_no_leak(printed):
    assert f"{len(LEAKS)} errors" in printed
    assert "test_undone" not in printed


def test_missing_photographs_are_said_loudly(printed):
    assert "1 skipped" in printed
    assert "KE_DATA is not set: the tests on real photographs did not run." in printed
