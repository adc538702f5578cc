"""Slimmable: both networks' losses, the dense one's statistics, in real trainings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn

import lightning_ke as ke
from lightning_ke import KnowledgeEvolution
from lightning_ke.phases import Slimmable
from tests.phases.test_slim_first import Module, fit

PHASE = {"phases": [Slimmable(begin=0.5)], "fit_norm": "reestimate"}


class Quiet(Module):
    """Its step without a Trainer."""

    def log(self, *_: Any, **__: Any) -> None:
        """Forget it."""


def test_in_the_phase_every_batch_is_used_in_both_widths(tmp_path):
    seed_everything(3)
    module = Module()
    fit(tmp_path, module, **PHASE)
    assert module.widths == ([8] * 6 + [8, 4] * 6) * 2  # three batches an epoch
    assert "training_step" not in vars(module)


@pytest.mark.parametrize("returned", ["tensor", "dict"])
def test_the_loss_is_the_mean_of_both_and_the_statistics_are_the_dense_network_s(returned):
    seed_everything(3)
    module = Quiet()
    batch = (torch.randn(6, 2, 6, 6), torch.arange(6) % 3)
    mask = ke.draw_mask(module, "kels", 0.5, example_input=batch[0])
    slim, dense = ke.extract_slim(module, mask), copy.deepcopy(module)
    losses = [network.training_step(batch, 0) for network in (slim, dense)]
    for loss in losses:
        loss.backward()

    if returned == "dict":
        plain = module.training_step
        module.training_step = lambda *args: {"loss": plain(*args), "more": 1}
    result = Slimmable().step(module, mask.structure)(batch, 0)
    loss = result["loss"] if returned == "dict" else result
    assert returned == "tensor" or result["more"] == 1
    torch.testing.assert_close(loss, sum(losses) / 2)
    loss.backward()
    narrow = dict(slim.named_parameters())
    for name, parameter in module.named_parameters():
        wanted = dict(dense.named_parameters())[name].grad / 2
        wanted[mask[name]] += narrow[name].grad.flatten() / 2
        torch.testing.assert_close(parameter.grad, wanted)
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(buffer, dict(dense.named_buffers())[name])


def test_a_slim_network_that_was_trained_with_the_dense_one_is_better_in_the_first_generation(tmp_path):
    """Its loss on the training images after one generation, over three seeds."""
    better = 0
    for seed in range(3):
        found = {}
        for name, phases in (("plain", []), ("both", [Slimmable(begin=0.25)])):
            seed_everything(seed)
            watch, _ = fit(tmp_path / f"{name}{seed}", Module(), phases=phases, fit_norm="reestimate")
            found[name] = watch.scores[3][1]
        better += found["both"] < found["plain"]
    assert better == 3


@pytest.mark.parametrize("epoch", [1, 2, 4, 6])
def test_a_run_resumed_in_the_phase_is_the_whole_one(tmp_path, epoch):
    seed_everything(3)
    whole = Module(decay=0.01)
    fit(tmp_path / "whole", whole, **PHASE)
    seed_everything(4)
    resumed = Module(decay=0.01)
    fit(tmp_path / "again", resumed, checkpoint=tmp_path / "whole" / f"epoch={epoch}.ckpt", **PHASE)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_a_module_that_optimizes_by_hand_is_told_so(tmp_path):
    class ByHand(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.ReLU(), nn.Linear(8, 3))
            self.automatic_optimization = False
            self.example_input_array = torch.zeros(1, 2, 6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    evolution = KnowledgeEvolution("kels", rate=0.5, generations=1, phases=[Slimmable(begin=0.0)])
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[evolution], default_root_dir=tmp_path, **quiet)
    data = torch.utils.data.TensorDataset(torch.randn(8, 2, 6, 6), torch.arange(8) % 3)
    with pytest.raises(TypeError, match="to return a loss for phase 'slimmable', but got NoneType"):
        trainer.fit(ByHand(), torch.utils.data.DataLoader(data, 4))
