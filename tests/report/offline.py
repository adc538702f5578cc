"""Offline runs of Weights & Biases, and what they hold, as its own tool tells."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Nothing leaves this machine, nothing is written outside of the test's folder, nobody is logged in."""
    home = tmp_path / "wandb-home"
    home.mkdir()
    for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    import wandb

    wandb.teardown()  # its service is told of in the environment


@dataclass
class Offline:
    """What an offline run holds."""

    run: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    axes: dict = field(default_factory=dict)
    rows: list = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    tables: list = field(default_factory=list)
    exit_code: int | None = None


def read_back(folder):
    """Read the one offline run below a folder."""
    (log,) = Path(folder).glob("wandb/offline-run-*/*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = Offline()
    for record in map(json.loads, lines):
        kind = record["type"]
        content = record.get(kind, {})
        if kind == "run":
            found.run = content
        elif kind == "config":
            found.config |= content["update"]
        elif kind == "metric":
            found.axes[content.get("name") or content["glob_name"]] = content.get("step_metric")
        elif kind == "history":
            found.rows.append(content["item"])
        elif kind == "summary":
            found.summary |= content["update"]
        elif kind == "artifact":
            files = [entry["path"] for entry in content["manifest"]["contents"]]
            found.artifacts.setdefault(content["type"], []).append((content["name"], sorted(files)))
        elif kind == "exit":
            found.exit_code = content["exit_code"]
    for path in sorted(log.parent.glob("files/media/table/**/generations_*.json")):
        found.tables.append(json.loads(path.read_text()))
    return found
