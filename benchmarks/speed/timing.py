"""Paired timing: two things take turns, so that whatever else the machine does falls on both.

Times are CPU times of one process with one thread: on an idle machine the same as the time on the wall, and not
lengthened by other programs that want the processor.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        what: What is measured.
        ours: Our figure, with its unit.
        peer: What it stands beside.
        theirs: The peer's figure, with its unit.
        goal: The goal in words.
        met: Whether the goal is met.
    """

    what: str
    ours: str
    peer: str
    theirs: str
    goal: str
    met: bool


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def interleaved(actions: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, float]:
    """Median CPU seconds of each action; in every round each runs once, in turns from first to last and back.

    Args:
        actions: What is timed, by name.
        rounds: Number of timed rounds.
        warmup: Number of rounds before, not counted.
    """
    return {name: statistics.median(values) for name, values in samples(actions, rounds, warmup).items()}


def samples(actions: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """CPU seconds of each action in each round; see `interleaved`."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    gc.collect()
    for number in range(warmup + rounds):
        for name in list(actions) if number % 2 else reversed(list(actions)):
            elapsed = seconds(actions[name])
            if number >= warmup:
                taken[name].append(elapsed)
    return taken


def in_new_process(program: str) -> float:
    """What a Python program prints, a number, when a new interpreter runs it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def milliseconds(value: float) -> str:
    """Seconds as a figure in milliseconds."""
    return f"{1000 * value:,.1f} ms"


def megabytes(value: float) -> str:
    """Bytes as a figure in megabytes."""
    return f"{value / 1e6:,.2f} MB"
