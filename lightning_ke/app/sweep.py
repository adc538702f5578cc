"""A sweep as a whole: what is refused before its first job, and what is said after its last one."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lightning_ke.app.folders import name_sweep
from lightning_ke.app.job import SweepJobError
from lightning_ke.app.preflight import check_one_process


class FailedJob(JobReturn):
    """A job that failed, whose error the summary names: Hydra has nothing to add."""

    @property
    def return_value(self) -> Any:
        """Raise the error, as Hydra does, but without its line of overrides."""
        raise self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class SweepWatch(Callback):
    """Tells the command line that this is a sweep, and ends one that cannot work before it has begun.

    Attributes:
        folder: Where the sweep of this process is written; None if there is none.
    """

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a sweep of runs that each start processes of their own.

        Args:
            config: The configuration that all jobs begin with.
            **kwargs: Not used.

        Raises:
            SystemExit: With code 2 and one line on stderr; Hydra turns other exceptions of a callback into warnings.
        """
        try:
            check_one_process(config, config.hydra.launcher)
        except ValueError as error:
            print(f"ke-train: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        SweepWatch.folder = name_sweep(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let a job of a sweep that failed be named once.

        Args:
            config: The job's configuration.
            job_return: What the launcher hands back.
            **kwargs: Not used.
        """
        if isinstance(job_return._return_value, SweepJobError):
            job_return.__class__ = FailedJob


def sweep_summary(folder: Path, failed: Exception | None = None) -> str:
    """Say how many jobs of a sweep's folder are in which state, and which ones failed why.

    Args:
        folder: The sweep's folder.
        failed: What the sweep was told of a job that failed; the job's folder may hold another run, which did not.
    """
    jobs = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/status.json")}
    counts = Counter(status["state"] for status in jobs.values())
    lines = [f"{folder}: {', '.join(f'{count} {state}' for state, count in sorted(counts.items())) or 'no jobs'}."]
    errors = [f"failed: {name}: {status['error']}" for name, status in sorted(jobs.items()) if status["error"]]
    if failed is not None and f"failed: {failed}" not in errors:
        errors.append(f"failed: {failed}")
    lines += errors
    if errors or set(counts) - {"finished"}:
        lines.append("The same command again skips finished jobs and continues the others.")
    return "\n".join(lines)
