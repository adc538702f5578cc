"""Weights & Biases beside a plain callback: every figure is read back from real offline runs."""

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

import lightning_ke as ke
from lightning_ke.report.wandb import generation_row, log_files, wandb_loggers
from tests.callback.modules import Classifier, train_loader, val_loader
from tests.report.offline import needs_wandb, offline, read_back

__all__ = ["offline"]
pytestmark = [needs_wandb, pytest.mark.slow]  # the fast tests' environment has no wandb


def train(logger, folder, generations=3, *callbacks, checkpoint=None):
    evolution = ke.KnowledgeEvolution(rate=0.5, epochs_per_generation=1, seed=3)
    trainer = Trainer(
        max_epochs=generations,
        callbacks=[evolution, *callbacks],
        logger=logger,
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), train_loader(), val_loader(), ckpt_path=checkpoint)
    return evolution, trainer


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("prefix", ["", "mine"])
def test_every_figure_of_a_generation_is_there(tmp_path, prefix):
    from lightning.pytorch.loggers import WandbLogger

    logger = WandbLogger(project="p", save_dir=tmp_path, prefix=prefix)
    try:
        evolution, _ = train(logger, tmp_path)
    finally:
        logger.experiment.finish()
    found = read_back(tmp_path)
    before = f"{prefix}-" if prefix else ""
    names = [f"ke/generation_end/{side}/{name}" for side in ("dense", "fit") for name in ("val_acc", "val_loss")]
    # Each has the generation as its x axis, and what is logged in every epoch keeps the logger's own.
    assert {name: found.axes[before + name] for name in names} == dict.fromkeys(names, f"{before}ke/generation")
    assert found.axes["*"] == "trainer/global_step"
    assert f"{before}ke/fit/val_acc" not in found.axes
    rows = [row for row in found.rows if before + names[0] in row]
    assert [row[f"{before}ke/generation"] for row in rows] == [1, 2, 3]
    for record, row in zip(evolution.history, rows, strict=True):
        for name in names:
            side, metric = name.split("/")[2:]
            assert row[before + name] == record[side][metric]
    assert found.summary[f"{before}ke/generation_end/fit/val_acc"] == evolution.history[-1]["fit"]["val_acc"]
    assert found.config["ke"] == {
        "split": "kels",
        "rate": 0.5,
        "ops": None,
        "round_to": None,
        "target": None,
        "epochs_per_generation": 1,
        "end": None,
        "schedule": None,
        "phases": [],
        "generations": 3,
        "seed": 3,
        "reset": "layer",
        "norm": "keep",
        "exclude": [],
        "optimizer": "new",
        "lr_schedule": "restart",
    }
    assert sorted(row[:2] for table in found.tables for row in table["data"]) == [[1, 1], [2, 1], [3, 1]]
    assert all(table["columns"] == list(generation_row(evolution.history[0])) for table in found.tables)
    ((_, files),) = found.artifacts["history"]
    assert files == ["ke_history.csv"]
    assert found.exit_code == 0


@pytest.mark.usefixtures("offline")
def test_a_run_that_goes_on_elsewhere_begins_with_the_earlier_generations(tmp_path):
    from lightning.pytorch.loggers import WandbLogger

    _, trainer = train(False, tmp_path, 2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    logger = WandbLogger(project="p", save_dir=tmp_path)
    evolution, _ = train(logger, tmp_path, 3, checkpoint=tmp_path / "two.ckpt")
    logger.experiment.finish()
    (table,) = read_back(tmp_path).tables
    assert [row[0] for row in table["data"]] == [1, 2, 3] == [record["generation"] for record in evolution.history]


def test_other_loggers_are_left_alone(tmp_path):
    assert list(wandb_loggers([CSVLogger(tmp_path)])) == []
    log_files([CSVLogger(tmp_path)], "any", "any", [tmp_path])


@pytest.mark.usefixtures("offline")
def test_files_that_are_not_there_make_no_artifact(tmp_path):
    from lightning.pytorch.loggers import WandbLogger

    (tmp_path / "there.txt").write_text("1")
    logger = WandbLogger(project="p", save_dir=tmp_path)
    log_files([logger], "nothing", "none", [tmp_path / "gone"])
    log_files([logger], "one", "some", [tmp_path / "gone", tmp_path / "there.txt"], rate=0.5)
    logger.experiment.finish()
    artifacts = read_back(tmp_path).artifacts
    ((name, files),) = artifacts["some"]
    assert (list(artifacts), files) == (["some"], ["there.txt"])
    assert name.startswith("one-")
