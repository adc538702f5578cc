"""Dormant channels are found wherever they flow, and recycled without a change of what the network says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from lightning_ke import draw_mask
from lightning_ke.redrawing import redraw_sets
from lightning_ke.splits import Call, Compose, Dormant, Kels, SplitContext
from tests.splits.test_every_split import Module, fit


class Residual(nn.Module):
    """A stream of four channels that two layers write and two read, the last one flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.block(x).relu()).flatten(1))


def silence(net: Residual, channel: int, parts: tuple[str, ...]) -> None:
    with torch.no_grad():
        if "stem" in parts:
            net.norm.weight[channel], net.norm.bias[channel] = 0.0, -1.0
        if "block" in parts:
            net.block.weight[channel] = 0.0
            net.block.bias[channel] = -1.0


X = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))


def test_a_channel_is_dormant_only_if_all_that_read_it_hear_nothing() -> None:
    net = Residual().eval()
    silence(net, 2, ("stem", "block"))
    silence(net, 1, ("stem",))  # the block still speaks on it
    silence(net, 3, ("block",))  # the stem still does
    mask = draw_mask(net, Dormant(0.0), example_input=X)
    assert (~mask["stem.weight"]).flatten(1).all(1).tolist() == [False, False, True, False]
    assert (~mask["stem.bias"]).tolist() == [False, False, True, False]
    assert bool(mask["norm.weight"].all())
    block = ~mask["block.weight"]
    assert block[2].all()
    assert block[:, 2].all()
    assert int(block.sum()) == (4 + 4 - 1) * 9
    assert (~mask["head.weight"]).view(2, 4, 9).all(0).all(1).tolist() == [False, False, True, False]
    assert bool(mask["head.bias"].all())


def test_recycling_what_is_silent_does_not_change_what_the_network_says() -> None:
    net = Residual().eval()
    silence(net, 2, ("stem", "block"))
    context = SplitContext(net, (Call("", (X,)),), None, seed=0, generation=2)
    split, before = Dormant(0.0), net(X).detach()
    old = net.stem.weight.detach().clone()
    mask = split.draw(context)
    report = redraw_sets(net, split.redraws(mask, context), 2)
    assert set(report.redrawn) == {"stem.weight", "stem.bias", "block.weight", "block.bias", "head.weight"}
    torch.testing.assert_close(net(X), before)
    assert bool((net.stem.weight[2] != old[2]).all()), "it reads afresh"
    assert net.stem.bias[2] == 0
    assert not net.head.weight.view(2, 4, 9)[:, 2].any(), "it is not listened to, for the time being"
    assert not net.block.weight[2, 2].any(), "what a dormant channel says to another one is silenced, too"
    assert bool((net.block.weight[2, :2] != 0).all())


def test_a_channel_s_score_is_its_share_of_the_layer_s_mean() -> None:
    net = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-0.3], [2.0], [0.7]]))  # the mean is 1
    for tau, dormant in ((0.29, 0), (0.31, 1), (0.71, 2)):
        mask = draw_mask(net, Dormant(tau), example_input=torch.ones(2, 1))
        assert int((~mask["0.weight"]).sum()) == dormant


@pytest.mark.parametrize("gated", ["one", "two"])
def test_it_does_not_matter_which_reader_hears_it(gated: str) -> None:
    class TwoReaders(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.two = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(3, 2)
            self.gate = nn.BatchNorm1d(3)
            self.gate.weight.data[1] = 0.0

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            shut = self.gate(x)
            return self.one(shut if gated == "one" else x) + self.two(shut if gated == "two" else x)

    assert draw_mask(TwoReaders(), Dormant(0.0), example_input=torch.rand(4, 2)).fit_share == 1


class Kill(Callback):
    """Silences a unit for good, in front of the first step."""

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        with torch.no_grad():
            pl_module.net[3].bias[5] = -100.0


class Dead(Module):
    def configure_callbacks(self) -> Any:
        return [Kill()]


def test_a_dead_unit_lives_again_after_the_first_generation(tmp_path: Path) -> None:
    module, evolution, witness, _ = fit(tmp_path, Dormant(0.0), module=Dead())
    assert witness.masks[1].fit_share == 1, "nothing is known before the first generation is trained"
    assert not witness.masks[2]["net.3.weight"][5].any()
    changed = witness.changed[2]
    assert bool(changed["net.3.weight"][5].all())
    assert bool(changed["net.5.weight"][:, 5].all())
    assert int(changed["net.3.bias"].sum()) == int((~witness.masks[2]["net.3.bias"]).sum())
    assert abs(float(module.net[3].bias[5])) < 50
    assert [record["generation"] for record in evolution.history] == [1, 2, 3]


def test_inside_of_a_slim_structure_it_is_redrawn_beside_the_rest(tmp_path: Path) -> None:
    split = Compose(Kels(0.5), Dormant(0.0))
    _, evolution, witness, _ = fit(tmp_path, split, module=Dead())
    assert evolution.mask is not None
    assert evolution.mask.structure is not None
    changed, kept = witness.changed[2], witness.masks[2]
    assert bool(changed["net.3.weight"][~kept["net.3.weight"]].all())
    assert bool(changed["net.3.weight"][5].all())


@pytest.mark.parametrize("tau", [-0.1, 1.0, "0.1", True, float("nan")])
def test_a_wrong_share_is_refused(tau: Any) -> None:
    with pytest.raises(ValueError, match=r"`tau` to be in \[0, 1\)"):
        Dormant(tau)
