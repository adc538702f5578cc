"""Each logger keeps what a generation brought: the scores of both networks and the generation, in one row."""

from __future__ import annotations

import copy
import csv
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_ke import KnowledgeEvolution
from tests.callback.modules import Classifier, make_trainer, train_loader, val_loader

compat = pytest.mark.compat
SCORES = ["ke/generation_end/dense/val_acc", "ke/generation_end/fit/val_acc", "ke/generation"]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """The loggers' libraries keep their books in the environment."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def evolve(tmp_path: Path, logger: Any) -> KnowledgeEvolution:
    seed_everything(0)
    callback = KnowledgeEvolution(epochs_per_generation=2, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback], logger=logger, log_every_n_steps=1)
    trainer.fit(Classifier(), train_loader(), val_loader())
    return callback


def expected(callback: KnowledgeEvolution) -> list[list[float]]:
    """What `SCORES` must have been logged as, generation by generation."""
    return [
        [record["dense"]["val_acc"], record["fit"]["val_acc"], float(record["generation"])]
        for record in callback.history
    ]


@compat("Loggers", "CSVLogger", "works")
def test_csv(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    callback = evolve(tmp_path, logger)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["ke/generation"]]
    assert [[float(row[name]) for name in SCORES] for row in rows] == expected(callback)


@pytest.mark.slow
@compat("Loggers", "TensorBoardLogger", "works")
def test_tensorboard(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path)
    callback = evolve(tmp_path, logger)
    logger.finalize("success")
    events = reading.EventAccumulator(logger.log_dir).Reload()
    found = [[event.value for event in events.Scalars(name)] for name in SCORES]
    assert [list(row) for row in zip(*found, strict=True)] == [pytest.approx(row) for row in expected(callback)]
    assert [event.step for event in events.Scalars("ke/generation")] == [6, 12]


@pytest.mark.slow
@compat("Loggers", "WandbLogger", "works", note="offline in the test")
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path))
    logger = WandbLogger(save_dir=str(tmp_path), offline=True, project="test")
    try:
        callback = evolve(tmp_path, logger)
        summary = dict(logger.experiment.summary)
    finally:
        wandb.finish()
        wandb.teardown()
    assert [summary[name] for name in SCORES] == pytest.approx(expected(callback)[-1])
    # What a fitted callback remembers of its W&B runs cannot be copied, and need not be.
    for again in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert again.history == callback.history


@pytest.mark.slow
@compat("Loggers", "MLFlowLogger", "works", note="with a file store in the test")
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer releases ask for a data base
    logger = MLFlowLogger("test", tracking_uri=(tmp_path / "mlruns").as_uri())
    callback = evolve(tmp_path, logger)
    client = tracking.MlflowClient((tmp_path / "mlruns").as_uri())
    found = [[metric.value for metric in client.get_metric_history(logger.run_id, name)] for name in SCORES]
    assert [list(row) for row in zip(*found, strict=True)] == [pytest.approx(row) for row in expected(callback)]
