"""The classification task: what it logs, what it saves, and that its schedule is as long as the Trainer says."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import SGD

from lightning_ke.data import EmbeddedDataModule
from lightning_ke.tasks import Classification
from lightning_ke.tasks.schedules import cosine_with_warmup


def small_network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 10)
    )


def trainer(folder, **options):
    defaults = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "default_root_dir": folder,
    }
    return Trainer(**(defaults | options))


@pytest.fixture
def data():
    return EmbeddedDataModule(batch_size=100)


def test_it_learns_and_logs(tmp_path, data):
    task = Classification(small_network(), 10, optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9))
    fitting = trainer(tmp_path)
    fitting.fit(task, data)
    assert {"train_loss", "val_loss", "val_acc", "val_acc5"} <= set(fitting.callback_metrics)
    assert fitting.callback_metrics["val_acc"] > 0.3
    assert fitting.callback_metrics["val_acc5"] > fitting.callback_metrics["val_acc"]
    (scores,) = fitting.test(task, data, verbose=False)
    assert set(scores) == {"test_loss", "test_acc", "test_acc5"}


def test_accuracy_is_that_of_all_images(tmp_path, data):
    """Not the mean over batches, of which the last may be smaller."""
    data.batch_size = 300
    task = Classification(small_network(), 10)
    (scores,) = trainer(tmp_path).validate(task, data, verbose=False)
    task.eval()
    with torch.no_grad():
        right = [(task(images).argmax(1) == labels) for images, labels in data.val_dataloader()]
    assert scores["val_acc"] == pytest.approx(torch.cat(right).float().mean().item())


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match=r"`num_classes` to be at least 2, but got 1: .*one folder for each class"):
        Classification(small_network(), 1)


def test_few_classes_have_no_top_five():
    assert Classification(small_network(), 5).monitors == ("val_acc", "val_loss")


@pytest.mark.parametrize(("interval", "expected"), [("epoch", 3), ("step", 30)])
def test_the_schedule_is_as_long_as_the_trainer_says(tmp_path, data, interval, expected):
    horizons = []

    def schedule(optimizer, horizon):
        horizons.append(horizon)
        return cosine_with_warmup(optimizer, horizon, warmup=1)

    task = Classification(small_network(), 10, scheduler=schedule, interval=interval)
    trainer(tmp_path, limit_val_batches=0).fit(task, data)
    assert horizons == [expected]


def test_a_schedule_needs_a_length(tmp_path, data):
    task = Classification(small_network(), 10, scheduler=cosine_with_warmup)
    with pytest.raises(ValueError, match="Expected the Trainer's length to be known"):
        trainer(tmp_path, max_epochs=-1, max_steps=5).fit(task, data)


def test_frozen_parameters_are_not_optimised(tmp_path, data):
    network = small_network()
    network[0].requires_grad_(False)
    task = Classification(network, 10)
    fitting = trainer(tmp_path, max_steps=1, max_epochs=-1, limit_val_batches=0)
    fitting.fit(task, data)
    optimised = {id(p) for group in fitting.optimizers[0].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in network[4].parameters()}


def test_label_smoothing_is_the_training_loss_only(data):
    data.setup("fit")
    images, labels = next(iter(data.val_dataloader()))
    plain = Classification(small_network(), 10, loss=nn.CrossEntropyLoss())
    smooth = Classification(small_network(), 10)  # the paper's loss, by default
    smooth.load_state_dict(plain.state_dict())
    plain.log = smooth.log = lambda *_, **__: None
    expected = nn.functional.cross_entropy(plain(images), labels)
    assert torch.allclose(plain.training_step((images, labels), 0), expected)
    smoothed = nn.functional.cross_entropy(plain(images), labels, label_smoothing=0.1)
    assert torch.allclose(smooth.training_step((images, labels), 0), smoothed)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_label_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"Expected argument `label_smoothing` to be in \[0, 1\)"):
        Classification(small_network(), 10, loss=nn.CrossEntropyLoss(label_smoothing=smoothing))


def test_the_checkpoint_holds_plain_values_only(tmp_path, data):
    task = Classification(small_network(), 10, config={"_target_": "some.network", "width": 0.5})
    fitting = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    fitting.fit(task, data)
    fitting.save_checkpoint(tmp_path / "it.ckpt")
    content = torch.load(tmp_path / "it.ckpt", weights_only=True)
    assert dict(content["hyper_parameters"]) == {
        "num_classes": 10,
        "interval": "epoch",
        "config": {"_target_": "some.network", "width": 0.5},
        "auc": False,
        "calibration": False,
    }
    again = Classification.load_from_checkpoint(tmp_path / "it.ckpt", backbone=small_network())
    assert all(torch.equal(a, b) for a, b in zip(task.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_calibration_error_is_that_of_all_test_images(tmp_path, data):
    """Worked out by hand from the network's own confidences, 15 bins of equal width."""
    task = Classification(small_network(), 10, optimizer=lambda p: SGD(p, lr=0.1, momentum=0.9), calibration=True)
    fitting = trainer(tmp_path)
    fitting.fit(task, data)
    assert "val_ece" in fitting.callback_metrics
    assert "val_ece" not in task.monitors
    (scores,) = fitting.test(task, data, verbose=False)
    with torch.no_grad():
        batches = [(task(images).softmax(1), labels) for images, labels in data.test_dataloader()]
    confidence, predicted = torch.cat([p for p, _ in batches]).max(1)
    right = (predicted == torch.cat([labels for _, labels in batches])).double()
    expected = 0.0
    for low in range(15):
        of_bin = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if of_bin.any():
            gap = (confidence[of_bin].double().mean() - right[of_bin].mean()).abs()
            expected += float(of_bin.double().mean() * gap)
    assert 0 < expected < 1
    assert scores["test_ece"] == pytest.approx(expected, abs=1e-4)
