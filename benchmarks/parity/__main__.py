"""Run the authors' script and ours on the same job, in turn, and write how far apart they are.

Usage: python -m benchmarks.parity --reference DIR --data DIR --out DIR [--seeds 0 1 2] [--collect]

`--reference` is a clone of github.com/ahmdtaha/knowledge_evolution, `--data` the folder that holds `flowers-102`.
Finished runs are kept: the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.parity import page

#: Half width, 64 px. The script's own length is 5 generations of 200 epochs.
WIDTH, SIZE = 0.5, 64


def main() -> None:
    """Run what is missing, then write CSV, page and plot."""
    parser = argparse.ArgumentParser(description="Compare with the authors' script.")
    parser.add_argument("--reference", type=Path, help="a clone of the authors' repository")
    parser.add_argument("--data", type=Path, help="folder that holds flowers-102")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, outside the repository")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="of each generation")
    parser.add_argument("--collect", action="store_true", help="train nothing, only write what there is")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of CSV, page and plot")
    options = parser.parse_args()
    if not options.collect:
        if options.reference is None or options.data is None:
            parser.error("--reference and --data are needed to train; --collect writes what there is")
        for seed in options.seeds:
            for name, command in (("theirs", theirs), ("ours", ours)):
                folder = options.out / f"{name}-g{options.generations}x{options.epochs}-s{seed}"
                if not (folder / "measured.json").exists():
                    print(f"{time.strftime('%H:%M:%S')} {folder.name}", flush=True)
                    shutil.rmtree(folder, ignore_errors=True)
                    measure(command(options, seed, folder), folder)
    page.write(collect(options.out), options.results)


def theirs(options: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """The command that runs the authors' script.

    Args:
        options: The command line.
        seed: Seed of everything.
        folder: Where it writes.
    """
    words = (options.reference, options.data, folder, seed, WIDTH, SIZE, options.generations, options.epochs)
    return ["-m", "benchmarks.parity.theirs", *map(str, words)]


def ours(options: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """The command that runs ours.

    Args:
        options: The command line.
        seed: Seed of everything.
        folder: Where it writes.
    """
    return [
        "-m",
        "lightning_ke.app.train",
        "experiment=flowers102",
        f"datamodule.root={options.data.resolve()}",
        "datamodule._target_=benchmarks.parity.ours.ScoredOnTest",
        f"datamodule.image_size={SIZE}",
        "backbone._target_=benchmarks.parity.ours.backbone",
        f"backbone.width={WIDTH}",
        "~backbone.stem",
        f"generations.count={options.generations}",
        f"generations.epochs={options.epochs}",
        f"trainer.check_val_every_n_epoch={options.epochs}",
        "trainer.enable_progress_bar=false",
        "threads=1",
        "channels_last=true",
        f"seed={seed}",
        f"hydra.run.dir={folder.resolve()}",
    ]


def measure(command: list[str], folder: Path) -> None:
    """Run one job on one core from its first import to its last file, and write what it cost.

    Args:
        command: Arguments of the Python interpreter.
        folder: Where the job writes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with folder.with_suffix(".log").open("w") as log:
        subprocess.run(
            [sys.executable, *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    content = {"seconds": seconds, "processor_seconds": used}
    (folder / "measured.json").write_text(json.dumps(content), encoding="utf-8")


def collect(out: Path) -> pd.DataFrame:
    """One row for each generation of each finished run.

    Args:
        out: Folder of the runs.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(out.glob("*/measured.json")):
        name, _, seed = path.parent.name.rpartition("-s")
        who, _, length = name.partition("-g")
        measured = json.loads(path.read_text(encoding="utf-8"))
        rows.extend(
            {
                "code": who,
                "generations": int(length.split("x")[0]),
                "epochs": int(length.split("x")[1]),
                "seed": int(seed),
                "generation": number,
                **scores,
                "seconds": round(measured["seconds"], 1),
                "processor_seconds": round(measured["processor_seconds"], 1),
            }
            for number, scores in enumerate(test_scores(path.parent, who), start=1)
        )
    if not rows:
        sys.exit(f"No run has finished in {out} yet.")
    return pd.DataFrame(rows)


def test_scores(folder: Path, who: str) -> list[dict[str, float]]:
    """Test accuracy of the dense and the slim network at the end of each generation.

    Args:
        folder: A run's folder.
        who: "theirs" or "ours".
    """
    if who == "theirs":
        scores: list[dict[str, float]] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return scores
    history = json.loads((folder / "results.json").read_text(encoding="utf-8"))["history"]
    return [{"dense": record["dense"]["val_acc"], "slim": record["fit"]["val_acc"]} for record in history]


if __name__ == "__main__":
    main()
