"""All trainings of a setting in one CSV, which is committed: what studies, tables and plots are made of.

A training whose rows are in it is done, also on a machine that does not have its folder.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy.study import Study

#: Scores of a network that go into the CSV where the run has them; the losses are the plain cross-entropy, the NLL.
SCORES = ("val_acc", "val_loss", "val_ece", "test_acc", "test_acc5", "test_loss", "test_ece")
VERSIONS = ("lightning_ke", "lightning", "torch", "python")
KEY = ["arm", "lr", "seed", "network"]


class Ledger:
    """The CSV of a setting, and the folder in which its jobs run.

    Args:
        path: The CSV.
        folder: Where the jobs write, one folder each; outside the repository.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder

    def here(self) -> list[str]:
        """Names of the finished jobs whose folders are at hand."""
        return [path.parent.name for path in sorted(self.folder.glob("*/results.json"))]

    def update(self, study: Study) -> pd.DataFrame:
        """Enter what a study's jobs have finished since, and return all rows.

        Args:
            study: The study.

        Raises:
            ValueError: If an arm of the study was something else when its rows were entered.
        """
        with self._locked():
            table = self.read()
            known = set() if table.empty else set(map(_name, table["arm"], table["lr"], table["seed"]))
            rows = [row for name in self.here() if name not in known for row in self._rows(study, name)]
            if rows:
                table = pd.concat([table, pd.DataFrame(rows)]).sort_values(KEY, ignore_index=True)
                # Through a file of its own: an interrupted write must not cost what took weeks.
                temporary = self.path.with_suffix(".new")
                table.to_csv(temporary, index=False)
                temporary.replace(self.path)
        _check(study, table)
        return table

    def read(self) -> pd.DataFrame:
        """All rows: one for each network of each finished training."""
        if not self.path.exists():
            return pd.DataFrame(columns=[*KEY, "config", *SCORES])
        texts = dict.fromkeys(("config", *VERSIONS), str)
        return pd.read_csv(self.path, keep_default_na=False, na_values=[""], dtype=texts)

    def _rows(self, study: Study, name: str) -> Iterator[dict[str, Any]]:
        arm, _, setting = name.rpartition("-lr")
        rate, _, seed = setting.rpartition("-s")
        if arm not in {known.name for known in study.arms}:
            return
        result = json.loads((self.folder / name / "results.json").read_text(encoding="utf-8"))
        monitor, history = result["monitor"], result["history"]
        for network, scores in result["networks"].items():
            kind = "dense" if network == "dense" else "fit"
            yield {
                "arm": arm,
                "lr": float(rate),
                "seed": int(seed),
                "network": network,
                "config": study.arm(arm).config,
                **{score: scores.get(score) for score in SCORES},
                "operations": scores["operations"],
                "parameters": scores["parameters"],
                "training_operations": result["training_operations"],
                "epochs": sum(record["epochs"] for record in history),
                "generations": " ".join(f"{record[kind].get(monitor, float('nan')):.4f}" for record in history),
                "seconds": round(result["seconds"]),
                **{key: result["environment"][key] for key in VERSIONS},
            }

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone, also among processes that work at the same setting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder / "ledger.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def scores(table: pd.DataFrame) -> dict[str, float]:
    """The validation score of the dense network of each finished job, by the job's name.

    Args:
        table: All rows.
    """
    dense = table[table["network"] == "dense"]
    names = map(_name, dense["arm"], dense["lr"], dense["seed"])
    return dict(zip(names, dense["val_acc"].astype(float), strict=True))


def of_study(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a study's arms, in its order, with a column `tuned`: whether the learning rate is the chosen one.

    The training operations of an arm that learns from another one hold those of that one, too.

    Args:
        study: The study.
        table: All rows of its setting.
    """
    known = scores(table)
    chosen = {arm.name: study.chosen_rate(arm, known) for arm in study.arms}
    order = {arm.name: position for position, arm in enumerate(study.arms)}
    own = table[table["arm"].isin(order)].copy()
    own["tuned"] = own["lr"] == own["arm"].map(chosen)
    for arm in study.arms:
        if arm.after:  # what it learns from had to be trained, too
            before = table[(table["arm"] == arm.after) & (table["lr"] == chosen[arm.after])]
            cost = own["seed"].map(before.drop_duplicates("seed").set_index("seed")["training_operations"])
            own.loc[own["arm"] == arm.name, "training_operations"] += cost
    return own.sort_values(KEY, key=lambda column: column.map(order) if column.name == "arm" else column)


def _check(study: Study, table: pd.DataFrame) -> None:
    """Refuse to mix trainings of two things that have one name."""
    for arm in study.arms:
        entered = set(table.loc[table["arm"] == arm.name, "config"].fillna(""))
        if entered - {arm.config}:
            raise ValueError(
                f"Expected arm {arm.name!r} to be what its rows in the ledger were trained as, {entered.pop()!r}, but "
                f"it is {arm.config!r} now. Give the new one another name, or delete the rows."
            )


def _name(arm: str, lr: float, seed: int) -> str:
    return f"{arm}-lr{lr:g}-s{seed}"
