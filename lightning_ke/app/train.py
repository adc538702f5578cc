"""`ke-train`: compose the configuration, then hand over; imports neither torch nor lightning before that."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_ke.extras import import_extra


def config_dir() -> Path:
    """Where the configuration lies: in the package (wheel) or beside it (source tree)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def main() -> None:
    """Run `ke-train` with the arguments of the command line.

    Raises:
        SystemExit: With code 2 and one line on stderr for what the user can put right, with code 1 after a sweep in
            which a job failed; with Hydra's own codes else.
    """
    try:
        import_extra("hydra", "app")
    except ModuleNotFoundError as error:
        raise SystemExit(f"ke-train: {error}") from None
    from lightning_ke.app.answers import answered, errors_raised

    with errors_raised(), answered():
        _dispatch(sys.argv[1:])


def _dispatch(arguments: list[str]) -> None:
    """Continue a run, or let Hydra compose a new one or a sweep."""
    if resumed := [argument for argument in arguments if argument.startswith("resume=")]:
        from lightning_ke.app.resume import continue_run

        rest = [argument for argument in arguments if argument not in resumed]
        continue_run(Path(resumed[-1].removeprefix("resume=")).expanduser(), rest)  # shells leave `=~` as it is
        return
    import hydra

    from lightning_ke.app.job import SweepJobError, job
    from lightning_ke.app.sweep import SweepWatch, sweep_summary

    failed: SweepJobError | None = None
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="train")(job)()
    except SweepJobError as error:
        failed = error
    finally:
        if SweepWatch.folder is not None:
            print(sweep_summary(SweepWatch.folder, failed))
    if failed is not None:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
