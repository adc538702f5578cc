"""Where a sweep and its jobs are written: names that depend on what is asked for and not on the time.

Importing this module teaches OmegaConf what conf/ asks for by `ke_`, here and in every process of a launcher, which
imports the job.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

# Longer names do not fit into every file system once something is put behind them.
_LONGEST = 100


# The name of the sweep that this process has begun; Hydra says what is swept before it resolves anything.
_names: list[str] = []


def name_sweep(config: DictConfig) -> Path:
    """Choose the folder of a sweep that begins: named after its experiment, or the job if that is swept or not chosen.

    Args:
        config: What all jobs of the sweep begin with, Hydra's part included.

    Returns:
        The folder.
    """
    name = config.hydra.runtime.choices.get("experiment") or config.hydra.job.name
    _names.append(name.replace("/", "-"))
    return Path(config.hydra.sweep.dir)


def sweep_name() -> str:
    """The name that the sweep of this process was given."""
    return _names[-1]


def job_name() -> str:
    """The folder of a job within its sweep's: what it changes."""
    settings = HydraConfig.get()
    return safe_name(settings.overrides.task, experiment=Path(str(settings.sweep.dir)).name)


def safe_name(overrides: Sequence[str], experiment: str = "") -> str:
    """Name a job after its overrides, whatever their order, in characters that every file system takes.

    Args:
        overrides: The overrides of the job.
        experiment: The experiment that the folder around it is named after already, its slashes as dashes.

    Example:
        >>> safe_name(["experiment=demo", "split.rate=0.3", "seed=1"], "demo")
        'seed=1,split.rate=0.3'
        >>> safe_name(["datamodule.root=/data/my flowers"])
        'datamodule.root=-data-my-flowers-da35a434'
    """
    kept = sorted(override for override in overrides if override.replace("/", "-") != f"experiment={experiment}")
    whole = ",".join(kept) or "defaults"
    name = re.sub(r"[^\w.,=+~-]+", "-", whole, flags=re.ASCII)[:_LONGEST]
    if name == whole:
        return name
    # Two jobs may look alike once something is replaced or cut off.
    return f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def direction(mode: str) -> str:
    """What a sweeper calls the way in which a metric gets better.

    Args:
        mode: "max" or "min".

    Example:
        >>> direction("min")
        'minimize'
    """
    return f"{mode}imize"


# What the first process has found holds for the jobs in all others, too: Hydra hands on what is cached, as for `now`.
OmegaConf.register_new_resolver("ke_sweep", sweep_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("ke_job", job_name, replace=True)
OmegaConf.register_new_resolver("ke_direction", direction, replace=True)
