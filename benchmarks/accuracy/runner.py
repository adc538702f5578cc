"""Runs a study's jobs, one process each; may be stopped at any time, and be running several times at once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.accuracy.ledger import Ledger, scores
from benchmarks.accuracy.study import Job, Study


def run(study: Study, ledger: Ledger, seconds: float, arms: Collection[str] = ()) -> list[str]:
    """Run what is left of a study.

    Args:
        study: The study.
        ledger: Where its trainings are entered.
        seconds: No job is begun later than this.
        arms: Names of the arms that are wanted; empty for all of the study's.

    Returns:
        Names of the jobs that failed.
    """
    begun = time.monotonic()
    failed: list[str] = []
    wanted = study.needed_for(arms or [arm.name for arm in study.arms])
    known = scores(ledger.update(study))
    while time.monotonic() - begun < seconds:
        for job in study.next_jobs(known, ledger.here()):
            if job.name in failed or job.arm.name not in wanted:
                continue
            # Held for as long as this process lives, however it ends: what was killed can be taken up again.
            with (ledger.folder / f"{job.name}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if job.name in ledger.here():
                    break  # finished by another process since the scores were read
                print(f"{time.strftime('%H:%M:%S')} {job.name}", flush=True)
                needed = study.needed(job, known)
                taken = job.arm.take(ledger.folder / needed.name) if needed is not None else ()
                if train(study, job, ledger.folder, taken) != 0:
                    failed.append(job.name)
                    print(f"{job.name} failed; see {ledger.folder / job.name}.log", flush=True)
            break
        else:
            break
        known = scores(ledger.update(study))
    return failed


def train(study: Study, job: Job, folder: Path, taken: Sequence[str] = ()) -> int:
    """Run one job, or what is left of it, and return its exit code.

    Args:
        study: The study.
        job: The job.
        folder: Where the setting's jobs write.
        taken: Overrides that come of the training that it needs.
    """
    own = folder / job.name
    if (own / "checkpoints" / "last.ckpt").exists():
        arguments = [f"resume={own}"]
    else:
        arguments = [
            *study.base,
            *job.arm.overrides,
            *taken,
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
