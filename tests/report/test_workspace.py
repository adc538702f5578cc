"""The dashboard: built without a server, its panels look at what the runs really log."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lightning_ke

pytestmark = [
    pytest.mark.slow,  # the fast tests' environment has no wandb
    pytest.mark.skipif(find_spec("wandb_workspaces") is None, reason="wandb-workspaces is not installed"),
]

NO_NETWORK = """
import socket, sys
def refuse(*_, **__): raise OSError("this test has no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from lightning_ke.app.dashboard import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The command without a network and without a login, and where it ran."""
    folder = tmp_path_factory.mktemp("dashboard")
    home = {name: str(folder) for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR")}
    world = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")} | home
    world["PYTHONPATH"] = str(Path(lightning_ke.__file__).parents[1])
    command = [sys.executable, "-c", NO_NETWORK, "--entity", "me", "--project", "mine", "--metric", "val_auc"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=world)
    assert result.returncode == 0, result.stderr
    return result, folder


@pytest.fixture(scope="module")
def sections(done):
    content = json.loads((done[1] / "ke-dashboard.json").read_text())
    assert (content["entity"], content["project"]) == ("me", "mine")
    bank = content["spec"]["section"]["panelBankConfig"]
    return {section["name"]: section["panels"] for section in bank["sections"]}


def test_without_a_login_the_json_is_written_and_the_next_step_said(done):
    assert done[0].stdout.splitlines() == [
        "The workspace is written to ke-dashboard.json.",
        (
            "Nobody is logged in to Weights & Biases, so it was not saved there. Run `wandb login` (or set "
            "WANDB_API_KEY) and this command again."
        ),
    ]


def test_generations_are_the_x_axis_and_rates_are_grouped(sections):
    lines = [panel["config"] for panel in sections["Generations"]]
    assert [line["metrics"] for line in lines] == [
        ["ke/generation_end/dense/val_auc"],
        ["ke/generation_end/fit/val_auc"],
    ]
    for line in lines:
        assert (line["xAxis"], line["groupBy"], line["groupArea"]) == ("ke/generation", "ke.value.rate", "minmax")


def test_rates_and_operations_are_plotted_against_scores(sections):
    axes = [(panel["config"]["xAxis"], panel["config"]["yAxis"]) for panel in sections["Split rates"]]
    assert axes == [
        ("config:ke.value.rate", "summary:ke/generation_end/dense/val_auc"),
        ("config:ke.value.rate", "summary:ke/generation_end/fit/val_auc"),
        ("summary:networks/dense/operations", "summary:networks/dense/test_auc"),
        ("summary:networks/slim/operations", "summary:networks/slim/test_auc"),
    ]


def test_everything_is_on_parallel_coordinates(sections):
    (panel,) = sections["All together"]
    assert panel["viewType"] == "Parallel Coordinates Plot"
    assert len(panel["config"]["columns"]) == 6


def test_runs_are_grouped_by_rate(done):
    content = json.loads((done[1] / "ke-dashboard.json").read_text())
    assert "ke.value.rate" in json.dumps(content["spec"]["section"]["runSets"][0]["grouping"])


def test_a_login_without_a_network_ends_in_one_line(tmp_path):
    home = {name: str(tmp_path) for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR")}
    closed = {"WANDB_API_KEY": "0" * 40, "WANDB_SILENT": "true", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    world = os.environ | home | closed
    world["PYTHONPATH"] = str(Path(lightning_ke.__file__).parents[1])
    code = "from lightning_ke.app.dashboard import main; main(['--entity', 'me', '--project', 'mine'])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=world
    )
    assert result.returncode == 1
    assert "ke-dashboard: It could not be saved on Weights & Biases:" in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "ke-dashboard.json").is_file()
