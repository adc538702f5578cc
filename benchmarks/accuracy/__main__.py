"""Run a study, or what is left of it, and write its page and plot.

Usage: python -m benchmarks.accuracy pilot --data DIR --out DIR [--hours H] [--seeds 0 1 2] [--arms A B] [--collect]

`DIR` of `--data` holds `flowers-102` as torchvision lays it out, `eurosat` and `dogs-cats` as image folders (`train`,
`val`, `test`, a folder for each class). Stop it whenever you like and give the same command again: finished trainings
are kept, a half-finished one goes on from its last checkpoint. Several such commands may run at once and share the
work. What has finished is entered into `docs/results/trainings/SETTING.csv`; once that is
committed, another machine goes on from there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.accuracy import page
from benchmarks.accuracy.ledger import Ledger, of_study
from benchmarks.accuracy.runner import run
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.studies import STUDIES


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description="Measure accuracy against every honest control.")
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings, outside the repository")
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="", help="another than the study's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=[], help="train only these (more seeds for a claim, say)")
    parser.add_argument("--hours", type=float, default=float("inf"), help="begin no training later than this")
    parser.add_argument("--collect", action="store_true", help="train nothing, only write what there is")
    parser.add_argument("--results", type=Path, default=Path("docs/results"), help="folder of CSV, page and plot")
    options = parser.parse_args()
    study = STUDIES[options.study](options.setting, options.data, options.seeds)
    ledger = Ledger(options.results / "trainings" / f"{study.setting}.csv", options.out / study.setting)
    failed = [] if options.collect else run(study, ledger, options.hours * 3600, options.arms)
    table = of_study(study, ledger.update(study))
    if table.empty:
        sys.exit(f"No training of {study.name!r} has finished in {ledger.folder} yet, and {ledger.path} has none.")
    page.write(study, table, options.results)
    print(page.comparison(study, table))
    if failed:
        sys.exit(f"{len(failed)} trainings failed: {', '.join(failed)}. Their logs are in {ledger.folder}.")


if __name__ == "__main__":
    main()
