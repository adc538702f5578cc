"""Composed configurations, and commands in processes of their own with the package under test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import lightning_ke
from lightning_ke.app.train import config_dir


def composed(*overrides):
    """What `ke-train` composes of these overrides."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", list(overrides))


def need_averages(overrides):
    """Skip the test if it asks for averaged weights, which Lightning has had since 2.6."""
    if "ema" in overrides:
        pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="new in lightning 2.6")


def _run(*command, cwd=None):
    world = os.environ | {"PYTHONPATH": str(Path(lightning_ke.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, env=world
    )


def python(code, *arguments, cwd=None):
    """Run a piece of Python."""
    return _run("-c", code, *arguments, cwd=cwd)


def ke(name, *arguments, cwd=None):
    """Run `ke-train` or `ke-slim`."""
    return python(f"from lightning_ke.app.{name} import main; main()", *arguments, cwd=cwd)


def module(name, *arguments, cwd=None):
    """Run `python -m lightning_ke.app.NAME`."""
    return _run("-m", f"lightning_ke.app.{name}", *arguments, cwd=cwd)
