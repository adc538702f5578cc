"""Short runs of every experiment, split and way to score, in this process."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import Logger
from torch import nn

from lightning_ke.app.experiment import run
from lightning_ke.masks import load_mask
from lightning_ke.slim import SlimError
from lightning_ke.tasks import Classification
from tests.app.commands import composed, need_averages
from tests.data.layouts import lay_out_flowers

LAST = torch.channels_last
# Two batches in each of two generations.
SHORT = [
    "generations.count=2",
    "generations.epochs=1",
    "warmup=0",
    "logger=none",
    "threads=null",
    "trainer.enable_progress_bar=false",
    *(f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")),
]


@pytest.mark.parametrize("name", ["smoke", "demo", "flowers102"])
def test_every_experiment_runs(tmp_path, monkeypatch, name):
    lay_out_flowers(tmp_path, monkeypatch)
    own = [f"datamodule.root={tmp_path}", "backbone.width=0.25"] if name == "flowers102" else []
    score = run(composed(f"experiment={name}", *SHORT, *own), tmp_path / "out")
    assert 0 <= score <= 1
    assert (tmp_path / "out" / "slim.safetensors").is_file()


@pytest.mark.parametrize("split", ["wels", "layers", "random-each-generation"])
def test_splits_without_a_slim_network_run_to_the_end(tmp_path, split):
    run(composed("experiment=smoke", *SHORT, f"split={split}"), tmp_path / "out")
    networks = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    assert set(networks) == {"dense"}
    assert not (tmp_path / "out" / "slim.safetensors").exists()


@pytest.mark.parametrize(
    "override",
    [
        "generations.score_fit=generation",
        "generations.score_fit=false",
        "generations.fit_norm=reestimate",
        "monitor=val_loss mode=min",
        "generations.count=null generations.epochs=[1,2]",
        "trainer.precision=64-true generations.fit_norm=reestimate",
        "trainer.precision=bf16-true",
    ],
)
def test_other_ways_to_score_run_to_the_end(tmp_path, override):
    run(composed("experiment=smoke", *SHORT, *override.split()), tmp_path / "out")
    networks = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    assert set(networks) == {"dense", "slim"}


def test_channels_come_last_in_memory_all_the_way(tmp_path, monkeypatch):
    """Also behind a redraw, and although the images come as they always do."""
    seen = []

    class Watched(Classification):
        def training_step(self, batch, batch_idx):
            seen.append(self.backbone.layer1(self.backbone.conv1(batch[0])).is_contiguous(memory_format=LAST))
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("lightning_ke.tasks.Classification", Watched)
    run(composed("experiment=smoke", *SHORT, "channels_last=true"), tmp_path / "out")
    assert seen == [True] * 4


def test_a_run_teaches_a_narrower_one(tmp_path):
    run(composed("experiment=smoke", *SHORT), tmp_path / "first")
    teacher = f"loss.teacher.checkpoint={tmp_path / 'first' / 'checkpoints' / 'best-dense.ckpt'}"
    run(composed("experiment=smoke", *SHORT, "backbone.width=0.125", "loss=distillation", teacher), tmp_path / "second")
    first, second = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second"))
    assert second["networks"]["dense"]["parameters"] < first["networks"]["dense"]["parameters"] / 3


EVERYDAY = [
    "callbacks=[ema,lr_monitor] trainer=cpu logger=csv logger.csv.save_dir=log",
    "callbacks=early_stopping loss=cross_entropy",
    "callbacks=early_stopping callbacks.early_stopping=null logger=csv logger.csv=null",  # left out again
    "callbacks=[] ~logger",
    "debug=one_batch optimizer=adamw",
    "debug=overfit generations.count=1",
    "redraw=shrink_perturb redraw.reset.shrink=0.5 scheduler=one_cycle",
    "generations=plateau generations.end.least=1",
    "generations=overfit generations.epochs=null generations.end.least=1 generations.end.most=1",
]


@pytest.mark.parametrize("overrides", EVERYDAY)
def test_groups_run_together(tmp_path, overrides):
    """Each file that changes what a Trainer does, in a run of two batches an epoch."""
    need_averages(overrides)
    run(composed("experiment=smoke", *SHORT, *overrides.split()), tmp_path / "out")
    history = json.loads((tmp_path / "out" / "results.json").read_text())["history"]
    assert [record["generation"] for record in history] == ([1] if "debug=overfit" in overrides else [1, 2])


class Theirs(LightningModule):
    """Somebody's own module: takes the optimizer alone, knows nothing of backbones."""

    def __init__(self, optimizer, hidden=8):
        super().__init__()
        self.make = optimizer
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("val_mine", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch):
        self.log("test_mine", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return self.make(self.parameters())


def test_somebody_s_own_module(tmp_path):
    own = [f"task._target_={__name__}.Theirs", "+task.hidden=6", "monitor=val_mine"]
    run(composed("experiment=smoke", *SHORT, *own), tmp_path / "out")
    networks = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    assert networks["dense"]["parameters"] == 784 * 6 + 6 + 6 * 10 + 10
    assert networks["slim"]["parameters"] == 784 * 3 + 3 + 3 * 10 + 10
    assert set(networks["slim"]) >= {"val_mine", "test_mine"}


def test_a_network_that_cannot_be_cut_is_reported_all_the_same(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise SlimError("a width is fixed in `views.Net`")

    monkeypatch.setattr("lightning_ke.app.outcome.extract_slim", refuse)
    run(composed("experiment=smoke", *SHORT), tmp_path / "out")
    assert "There is no slim network: a width is fixed in `views.Net`" in capsys.readouterr().out
    assert (tmp_path / "out" / "tables.md").is_file()


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_slim_network_has_the_channels_under_which_it_was_chosen(tmp_path, monkeypatch, capsys, mode):
    """With a schedule of rates the last generation keeps others; in one of the two modes the first one is chosen."""
    monkeypatch.setattr(Classification, "directions", {})
    rates = "generations.schedule={rate:[0.8,0.3]}"
    run(composed("experiment=smoke", *SHORT, rates, "monitor=val_loss", f"mode={mode}"), tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    mask = load_mask(tmp_path / "out" / "checkpoints" / "best-fit.ckpt")
    kept = sum(int(mask[name].sum()) for name in mask)
    assert results["networks"]["slim"]["parameters"] == kept
    assert sum(round(entry["fit"] * mask[entry["name"]].numel()) for entry in results["mask"]) == kept
    assert "fit parameters" not in capsys.readouterr().out  # they are not the same in all generations


class Recorder(Logger):
    """A logger whose experiment must be finished, as that of Weights & Biases."""

    finished = 0
    name = version = "recorder"

    @property
    def experiment(self):
        return self

    def finish(self):
        Recorder.finished += 1

    def log_metrics(self, metrics, step=None):
        """Forget them."""

    def log_hyperparams(self, params):
        """Forget them."""


@pytest.mark.parametrize("fails", [False, True])
def test_loggers_are_closed_whatever_happens(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(Recorder, "finished", 0)
    config = composed("experiment=smoke", *SHORT, f"+logger.it._target_={__name__}.Recorder")
    if fails:
        monkeypatch.setattr(Classification, "training_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, tmp_path / "out")
    else:
        run(config, tmp_path / "out")
    assert Recorder.finished == 1


@pytest.mark.timeout(600)
def test_real_photographs_are_told_apart(flowers_mini, tmp_path):
    """20 flowers, 200 training images: after a few epochs better than chance (5 %), for the slim network, too."""
    own = ["datamodule=folder", f"datamodule.root={flowers_mini}", "optimizer.lr=0.05", "warmup=1"]
    longer = ["generations.epochs=5", *(f"trainer.limit_{part}_batches=null" for part in ("train", "val", "test"))]
    score = run(composed("experiment=flowers102", *SHORT, *own, *longer), tmp_path / "out")
    networks = json.loads((tmp_path / "out" / "results.json").read_text())["networks"]
    assert score > 0.12
    assert networks["dense"]["test_acc"] > 0.12
    assert networks["slim"]["test_acc"] > 0.07
