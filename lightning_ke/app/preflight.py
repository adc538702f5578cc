"""What is refused before anything expensive is imported."""

from __future__ import annotations

import os
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def check_complete(config: DictConfig) -> None:
    """Refuse a configuration in which a value that only the user knows is missing.

    Args:
        config: The composed configuration.

    Raises:
        ValueError: If a value is missing.
    """
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"Expected a value for {missing[0]!r}, but it has none. Add {missing[0]}=VALUE.")


def check_one_process(config: DictConfig, launcher: Any = None) -> None:
    """Refuse a job of a sweep that would start further processes: they would run the whole sweep again.

    Args:
        config: The composed configuration.
        launcher: The configuration of Hydra's launcher, if it is known; SLURM may start the processes itself.

    Raises:
        ValueError: If each job trains on several devices.
    """
    devices, strategy = config.trainer.devices, config.trainer.strategy
    # All that there are, which may be several: only a look at them, by torch, would tell.
    several = devices == "auto" and config.trainer.accelerator != "cpu"
    if isinstance(devices, (list, ListConfig)):
        several = len(devices) > 1
    elif devices != "auto":
        several = devices not in (0, 1, "0", "1")
    name = strategy.get("_target_", "") if isinstance(strategy, DictConfig) else str(strategy)
    if not several and "ddp" not in name.lower():
        return
    if "SLURM_NTASKS" in os.environ or (launcher is not None and launcher.get("tasks_per_node", 1) > 1):
        return
    raise ValueError(
        f"Expected a sweep (-m) of runs on one device each, but got trainer.devices={devices} and "
        f"trainer.strategy={strategy}: the processes that such a run starts would begin the whole sweep again. "
        "Leave both out and run several jobs at once (hydra/launcher=joblib), run the jobs one by one without -m, or "
        "let SLURM start the processes (hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=2)."
    )
