"""Measure everything and write one table.

Usage: python -m benchmarks.speed [--rounds N] [--only PART] [--out docs/results/speed.md]

With `--only` one part is measured (redrawing, drawing, running, training or imports) and its lines are printed.

Needs Linux (memory is read from /proc), torchvision, onnx, onnxruntime and, as a peer, torch-pruning.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from types import ModuleType

import lightning
import torch

from benchmarks.speed import drawing, imports, loading, redrawing, running, training
from benchmarks.speed.timing import Row

HEADER = """# What lightning_ke costs

Written by `python -m benchmarks.speed`; do not edit. Medians of {rounds} paired rounds: ours and its peer take turns,
so that whatever else the machine does falls on both. Times are CPU times with torch held to one thread (on an idle
machine the same as on the wall). {cores} cores ({machine}), no GPU; Python {python}, torch {torch}, lightning
{lightning}; {load:.1f} programs wanted the cores meanwhile.

| what | ours | beside | its figure | goal | met |
|---|---|---|---|---|---|
"""


PARTS = (redrawing, drawing, running, training, loading, imports)


def _name(part: ModuleType) -> str:
    return part.__name__.rpartition(".")[2]


def render(rows: list[Row], rounds: int) -> str:
    """The table as Markdown."""
    header = HEADER.format(
        rounds=rounds,
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__.split("+")[0],
        lightning=lightning.__version__,
        load=os.getloadavg()[2],
    )
    lines = [
        f"| {row.what} | {row.ours} | {row.peer} | {row.theirs} | {row.goal} | {'yes' if row.met else '**no**'} |"
        for row in rows
    ]
    return header + "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure what lightning_ke costs, beside its peers.")
    parser.add_argument("--rounds", type=int, default=7, help="paired rounds of each measurement (default: 7)")
    parser.add_argument("--only", choices=[_name(part) for part in PARTS], help="measure and print one part")
    parser.add_argument("--out", type=Path, default=Path("docs/results/speed.md"), help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        (part,) = (part for part in PARTS if _name(part) == options.only)
        print(render(part.measure(options.rounds), options.rounds))
        return
    rows: list[Row] = []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        measured = part.measure(options.rounds)
        print("\n".join(f"{row.what}: {row.ours} | {row.peer}: {row.theirs} | {row.goal}" for row in measured))
        rows += measured
        options.out.write_text(render(rows, options.rounds))


if __name__ == "__main__":
    main()
