"""What would fail at the first redraw fails before the training."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_ke import KnowledgeEvolution
from lightning_ke.rehearsal import rehearse
from lightning_ke.resets import Reset, get_reset
from lightning_ke.units import StandIn
from tests.callback.modules import Classifier, make_trainer, train_loader, val_loader


class Scaled(nn.Linear):
    """Its reset wants to know what nobody tells it."""

    def reset_parameters(self, scale: float | None = 0.5) -> None:
        nn.init.normal_(self.weight, std=1 / scale)  # type: ignore[operator]


class Forgetful(Scaled):
    def reset_parameters(self, scale: float | None = None) -> None:
        if hasattr(self, "built"):
            super().reset_parameters(scale)
        self.built = True


class Counting(Reset):
    name = "counting"

    def __init__(self) -> None:
        self.draws = 0

    def draw(self, stand_in: StandIn) -> None:
        self.draws += 1


def test_a_layer_that_cannot_be_drawn_fails_before_the_training(tmp_path: Path) -> None:
    module = Classifier()
    module.model.own = Forgetful(2, 2)
    callback = KnowledgeEvolution(generations=2, seed=0, split="wels")
    trainer = make_trainer(tmp_path, max_epochs=4, callbacks=[callback])
    with pytest.raises(RuntimeError, match=r"Expected `model\.own` \(Forgetful\) to redraw its parameters"):
        trainer.fit(module, train_loader(), val_loader())
    assert trainer.global_step == 0


def test_a_reset_of_the_user_s_own_draws_in_redraws_only() -> None:
    reset, net = Counting(), nn.Sequential(Forgetful(2, 2), nn.Linear(2, 2))
    rehearse(net, [name for name, _ in net.named_parameters()], reset)
    assert reset.draws == 0


@pytest.mark.parametrize("reset", ["layer", "kaiming_normal", "shrink_perturb", "orthogonal"])
def test_nothing_changes(reset: str) -> None:
    net = nn.Sequential(Scaled(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before, stream = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    rehearse(net, [name for name, _ in net.named_parameters()], get_reset(reset))
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_writes_into_the_network_is_found_out() -> None:
    layer = nn.Linear(2, 2)
    layer.reset_parameters = lambda: nn.init.zeros_(layer.weight)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="wrote into the network itself"):
        rehearse(layer, ["weight"], get_reset("layer"))
