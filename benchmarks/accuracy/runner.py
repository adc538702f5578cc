"""Runs a study's jobs, one process each; may be stopped at any time, and be running several times at once."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy.study import Job, Study


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """What each finished job of a study has written, by the job's name.

    Args:
        folder: The study's folder.
    """
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*/results.json"))
    }


def scores(folder: Path) -> dict[str, float]:
    """The validation score of the dense network of each finished job.

    Args:
        folder: The study's folder.
    """
    return {name: float(result["networks"]["dense"]["val_acc"]) for name, result in results(folder).items()}


def run(study: Study, folder: Path, seconds: float) -> list[str]:
    """Run what is left of a study.

    Args:
        study: The study.
        folder: Where its jobs write, one folder each.
        seconds: No job is begun later than this.

    Returns:
        Names of the jobs that failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    failed: list[str] = []
    while time.monotonic() - begun < seconds:
        for job in study.next_jobs(scores(folder)):
            if job.name in failed:
                continue
            # Held for as long as this process lives, however it ends: what was killed can be taken up again.
            with (folder / f"{job.name}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if (folder / job.name / "results.json").exists():
                    break  # finished by another process since the scores were read
                print(f"{time.strftime('%H:%M:%S')} {job.name}", flush=True)
                if train(study, job, folder) != 0:
                    failed.append(job.name)
                    print(f"{job.name} failed; see {folder / job.name}.log", flush=True)
            break
        else:
            break
    return failed


def train(study: Study, job: Job, folder: Path) -> int:
    """Run one job, or what is left of it, and return its exit code.

    Args:
        study: The study.
        job: The job.
        folder: The study's folder.
    """
    own = folder / job.name
    if (own / "checkpoints" / "last.ckpt").exists():
        arguments = [f"resume={own}"]
    else:
        arguments = [
            *study.base,
            *job.arm.overrides,
            f"optimizer.lr={job.lr:g}",
            f"seed={job.seed}",
            f"hydra.run.dir={own}",
        ]
    with (folder / f"{job.name}.log").open("a") as log:
        return subprocess.run(
            [sys.executable, "-m", "lightning_ke.app.train", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"} if "threads=1" in study.base else None,
        ).returncode
