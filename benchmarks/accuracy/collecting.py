"""From the folders of a study's jobs to one CSV, which is what is committed and what tables and plots are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy.runner import results
from benchmarks.accuracy.study import Job, Study

#: Scores of a network that go into the CSV where the run has them; `test_loss` is the plain cross-entropy, the NLL.
SCORES = ("val_acc", "test_acc", "test_acc5", "test_loss", "test_ece")


def collect(study: Study, folder: Path) -> pd.DataFrame:
    """One row for each network of each finished job.

    Args:
        study: The study.
        folder: Where its jobs have written.

    Returns:
        The rows, in the study's own order of arms, then by learning rate and seed.
    """
    finished = results(folder)
    chosen = {arm.name: study.chosen_rate(arm, _validation(finished)) for arm in study.arms}
    rows: list[dict[str, Any]] = []
    for name, result in finished.items():
        arm, _, setting = name.rpartition("-lr")
        rate, _, seed = setting.rpartition("-s")
        if arm not in chosen:
            continue
        environment = result["environment"]
        rows.extend(
            {
                "arm": arm,
                "lr": float(rate),
                "tuned": chosen[arm] is not None and Job(_named(study, arm), chosen[arm] or 0, int(seed)).name == name,
                "seed": int(seed),
                "network": network,
                **{score: scores.get(score) for score in SCORES},
                "operations": scores["operations"],
                "parameters": scores["parameters"],
                "training_operations": result["training_operations"],
                "epochs": sum(record["epochs"] for record in result["history"]),
                "seconds": round(result["seconds"]),
                **{key: environment[key] for key in ("lightning_ke", "lightning", "torch", "python")},
            }
            for network, scores in result["networks"].items()
        )
    order = {arm.name: position for position, arm in enumerate(study.arms)}
    rows.sort(key=lambda row: (order[row["arm"]], row["lr"], row["seed"], row["network"]))
    return pd.DataFrame(rows)


def _validation(finished: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {name: float(result["networks"]["dense"]["val_acc"]) for name, result in finished.items()}


def _named(study: Study, name: str) -> Any:
    return next(arm for arm in study.arms if arm.name == name)
