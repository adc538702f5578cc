"""`ke-report DIR`: a page of a run or a sweep; imports neither torch nor lightning."""

from __future__ import annotations

import argparse
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run `ke-report`.

    Args:
        arguments: What stands on the command line; None for that of this process.
    """
    parser = argparse.ArgumentParser(
        prog="ke-report",
        description="Write a page about a run or a sweep of ke-train, with pictures (PNG) and numbers (CSV) beside it. "
        "The page needs no server and no network.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a run folder, or a folder with run folders in it")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page; default: DIR/report.html")
    options = parser.parse_args(arguments)
    out: Path = options.out or options.folder / "report.html"
    if out.is_dir():
        out = out / "report.html"

    from lightning_ke.report.page import write_report

    try:
        runs = write_report(options.folder, out)
    except (FileNotFoundError, ModuleNotFoundError) as error:
        parser.exit(2, f"ke-report: {error}\n")
    except OSError as error:
        place = error.filename or out
        parser.exit(2, f"ke-report: The report was not written, nothing was changed: {error.strerror} ({place}).\n")
    finished = sum(run.state == "finished" for run in runs)
    print(f"{out}\n{len(runs)} runs, {finished} finished; pictures and numbers are in {out.stem}_files beside it.")
    for run in runs:
        if run.state != "finished":
            print(f"{run.state}: {run.name}{f': {run.error}' if run.error else ''}")


if __name__ == "__main__":
    main()
