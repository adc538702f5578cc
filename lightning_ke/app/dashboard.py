"""`ke-dashboard`: the dashboard of a project on Weights & Biases; without a login, as a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> None:
    """Run `ke-dashboard`.

    Args:
        arguments: What stands on the command line; None for that of this process.
    """
    parser = argparse.ArgumentParser(
        prog="ke-dashboard",
        description="Build a workspace on Weights & Biases for the runs of ke-train, or of any Trainer with "
        "KnowledgeEvolution and a WandbLogger.",
    )
    parser.add_argument("--entity", required=True, help="user or team")
    parser.add_argument("--project", required=True, help="the project that the runs are in")
    parser.add_argument("--metric", default="val_acc", help="validation score, as the module logs it (%(default)s)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("ke-dashboard.json"),
        help="the workspace as JSON (%(default)s)",
    )
    options = parser.parse_args(arguments)

    from lightning_ke.extras import import_extra
    from lightning_ke.report.workspace import build_workspace, workspace_json
    from lightning_ke.report.writing import write_together

    try:
        wandb = import_extra("wandb", "wandb")
        workspace: Any = build_workspace(options.entity, options.project, options.metric)
        write_together({options.out: workspace_json(workspace).encode()})
    except (ModuleNotFoundError, OSError) as error:
        parser.exit(2, f"ke-dashboard: {error}\n")
    print(f"The workspace is written to {options.out}.")
    try:
        if not wandb.login(prompt=False):
            print(
                "Nobody is logged in to Weights & Biases, so it was not saved there. Run `wandb login` (or set "
                "WANDB_API_KEY) and this command again."
            )
            return
        saved = workspace.save()
    except Exception as error:  # whatever the server or the network has against it
        parser.exit(1, f"ke-dashboard: It could not be saved on Weights & Biases: {' '.join(str(error).split())}\n")
    print(f"It is saved at {saved.url}")


if __name__ == "__main__":
    main()
