"""The WandbLogger of `ke-train`: one run for each job, the jobs of a sweep in one group."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from lightning_ke.app.files import write_text
from lightning_ke.app.run_folder import is_first_process
from lightning_ke.extras import import_extra

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

# Groups of the configuration by which people look for a run.
_TAGS = ("experiment", "datamodule", "split")


def wandb_logger(
    save_dir: str,
    project: str,
    *,
    generations: int | None = None,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] | None = None,
    **options: Any,
) -> WandbLogger:
    """Build the logger of a job.

    A job that is continued goes on with its run: the run's id is kept in the job's folder, and what it was composed of.

    Args:
        save_dir: The job's folder.
        project: The project on Weights & Biases.
        generations: Number of generations; one is a baseline.
        name: Name of the run; None for that of the job's folder.
        group: None for the sweep's folder, and for no group outside of a sweep.
        job_type: None for "baseline" if there is one generation, else for the option of the group `split`.
        tags: None for the options of the groups experiment, datamodule and split.
        **options: Further arguments of `lightning.pytorch.loggers.WandbLogger` and `wandb.init`.

    Raises:
        ModuleNotFoundError: If wandb is not installed.
        ValueError: If the run is to go online and nobody has logged in.
    """
    wandb = import_extra("wandb", "wandb")
    from lightning.pytorch.loggers import WandbLogger

    mode = options.get("mode") or os.environ.get("WANDB_MODE", "online")
    if mode == "online" and not options.get("offline") and not wandb.login(prompt=False):
        raise ValueError(
            "Expected a login to Weights & Biases, but there is none. Run `wandb login`, or set WANDB_MODE=offline and "
            "upload the run later with `wandb sync`."
        )
    folder = Path(save_dir)
    sweep, choices = _chosen(folder)
    if group is None:
        group = sweep
    if job_type is None:
        job_type = "baseline" if generations == 1 else choices.get("split")
    if tags is None:
        tags = [choices[key] for key in _TAGS if key in choices]
    return WandbLogger(
        save_dir=save_dir,
        project=project,
        id=_run_id(folder) if is_first_process() else None,  # the others begin no run
        name=name or folder.name,
        group=group,
        job_type=job_type,
        tags=list(tags),
        **options,
    )


def _chosen(folder: Path) -> tuple[str | None, dict[str, str]]:
    """The sweep that a run belongs to, if any, and the options of the groups: Hydra's, or those with which it began.

    A run that goes on by ``resume=DIR`` is not composed of groups any more.
    """
    path = folder / "wandb" / "chosen.json"
    if HydraConfig.initialized():
        settings = HydraConfig.get()
        sweep = Path(settings.sweep.dir).name if settings.mode == RunMode.MULTIRUN else None
        choices = {key: value for key, value in settings.runtime.choices.items() if isinstance(value, str)}
        if is_first_process():
            write_text(path, json.dumps({"sweep": sweep, "choices": choices}))
        return sweep, choices
    if not path.is_file():
        return None, {}
    chosen = json.loads(path.read_text(encoding="utf-8"))
    return chosen["sweep"], chosen["choices"]


def _run_id(folder: Path) -> str:
    """The id of the run in a folder, a new one if it has none."""
    path = folder / "wandb" / "id.txt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")
