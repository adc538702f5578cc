"""The experiments of the paper, each on a tiny copy of its data set: two batches in each of two generations."""

import json

import pytest

from lightning_ke.app.experiment import run
from tests.app.commands import composed
from tests.data.layouts import LAYOUTS

SETS = ["flowers102", "cub200", "aircraft", "mit67", "dogs", "imagenet"]
NETWORKS = ["resnet18", "resnet34", "resnet50", "vgg11_bn", "densenet169", "googlenet"]
#: Each rate with each loss.
SETTINGS = [(rate, loss) for rate in (0.5, 0.8) for loss in ("cross_entropy", "label_smoothing", "cs_kd")]
#: Each network on each set, and with each rate and loss.
ALL = [
    (name, network, *SETTINGS[(row + column) % len(SETTINGS)])
    for row, name in enumerate(SETS)
    for column, network in enumerate(NETWORKS)
]
SHORT = [
    "generations.count=2",
    "generations.epochs=1",
    "warmup=0",
    "optimizer.lr=0.01",
    "logger=none",
    "trainer.enable_progress_bar=false",
    "datamodule.batch_size=2",
    "datamodule.num_workers=0",
    *(f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")),
]


def run_short(root, monkeypatch, name, *overrides):
    """Run an experiment and return its dense and slim network's results."""
    LAYOUTS[name](root, monkeypatch)
    added = ",paper/vgg11_bn" if "backbone.name=vgg11_bn" in overrides else ""
    config = composed(f"experiment=[paper/{name}{added}]", *SHORT, f"datamodule.root={root}", *overrides)
    run(config, root / "out")
    results = json.loads((root / "out" / "results.json").read_text())
    assert [record["generation"] for record in results["history"]] == [1, 2]
    assert (root / "out" / "checkpoints" / "last.ckpt").is_file()
    return config, results["networks"]


@pytest.mark.parametrize("name", SETS)
def test_an_experiment_runs_on_its_data(tmp_path, monkeypatch, name):
    """A narrow ResNet18 on small images; the full networks are among the slow tests."""
    loss = "cs_kd" if name == "cub200" else "label_smoothing"
    overrides = ["backbone.name=resnet18", "backbone.width=0.125", "datamodule.image_size=32", f"loss={loss}"]
    config, networks = run_short(tmp_path, monkeypatch, name, *overrides)
    assert config.optimizer.momentum == 0.9
    assert 0.2 < networks["slim"]["parameters"] / networks["dense"]["parameters"] < 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "network", "rate", "loss"), ALL)
def test_every_network_rate_and_loss_of_the_paper_runs(tmp_path, monkeypatch, name, network, rate, loss):
    overrides = [f"backbone.name={network}", f"split.rate={rate}", f"loss={loss}", "datamodule.image_size=64"]
    if network == "vgg11_bn":
        overrides.append("backbone.width=0.25")  # three checkpoints of the full one are three gigabytes
    config, networks = run_short(tmp_path, monkeypatch, name, *overrides)
    assert config.optimizer.weight_decay == (5e-4 if network == "vgg11_bn" else 1e-4)
    share = networks["slim"]["parameters"] / networks["dense"]["parameters"]
    assert rate**2 - 0.05 < share < rate


@pytest.mark.parametrize("name", SETS)
def test_it_is_the_setting_of_the_paper(name):
    config = composed(f"experiment=paper/{name}", "datamodule.root=here", "logger=none")
    assert config.datamodule.image_size == 224
    assert config.split.rate == 0.5
    if name != "imagenet":
        assert (config.generations.count, config.generations.epochs, config.datamodule.batch_size) == (10, 200, 32)
        assert (config.optimizer.lr, config.optimizer.weight_decay, config.warmup) == (0.256, 1e-4, 5)
        assert config.loss.label_smoothing == 0.1


def test_additions_are_added_to_a_set():
    config = composed("experiment=[paper/cub200,paper/vgg11_bn,paper/long_baseline]", "datamodule.root=here")
    assert config.backbone.name == "vgg11_bn"
    assert (config.generations.count, config.generations.epochs) == (1, 2000)
    assert config.datamodule._target_.endswith("CUB200DataModule")
