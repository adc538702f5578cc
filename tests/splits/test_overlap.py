"""The filters that overlap most are redrawn, as often as the rate says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_ke import draw_mask
from lightning_ke.splits.overlap import Overlap, overlap
from lightning_ke.units import units


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 8, 2), nn.Flatten(), nn.LazyLinear(2)
    )


def test_overlap_is_the_mean_absolute_cosine_with_the_other_filters() -> None:
    layer = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -2.0], [3.0, 3.0]]).view(3, 2, 1, 1))
    half = math.sqrt(0.5)
    torch.testing.assert_close(overlap(next(units(layer))), torch.tensor([half, half, 2 * half]) / 3)


def test_whole_filters_with_their_biases_go_and_the_last_layer_stays() -> None:
    net = network()
    net(torch.zeros(1, 3, 6, 6))
    mask = draw_mask(net, Overlap(0.5))
    first, second = (~mask["0.weight"]).flatten(1), (~mask["2.weight"]).transpose(0, 1).flatten(1)
    assert torch.equal(first.any(1), first.all(1))
    assert torch.equal(second.any(1), second.all(1))
    assert torch.equal(first.any(1), ~mask["0.bias"])
    assert torch.equal(second.any(1), ~mask["2.bias"])
    assert int(first.any(1).sum() + second.any(1).sum()) == 7
    assert all(bool(mask[name].all()) for name in ("1.weight", "4.weight", "4.bias"))
    scores = {name: overlap(unit) for unit in units(net) if unit.weights for name in [unit.name]}
    gone = torch.cat([scores["0"][first.any(1)], scores["2"][second.any(1)]])
    stays = torch.cat([scores["0"][~first.any(1)], scores["2"][~second.any(1)]])
    assert gone.min() >= stays.max()


def test_no_layer_loses_all_its_filters() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 40), nn.Linear(40, 1))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    mask = draw_mask(net, Overlap(0.9))
    assert int(mask["0.bias"].sum()) == 1


def test_slices_that_make_several_channels_are_no_filters() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 8, 2, groups=2), nn.ConvTranspose2d(8, 6, 2), nn.Conv2d(6, 2, 1))
    mask = draw_mask(net, Overlap(0.5))
    assert mask["0.weight"].all()
    assert int(mask["1.bias"].sum()) == 3
    assert torch.equal(mask["1.weight"][0, :, 0, 0], mask["1.bias"])


def test_a_network_without_filters_is_refused() -> None:
    with pytest.raises(ValueError, match="have filters that split 'overlap' can compare"):
        draw_mask(nn.Linear(2, 3), "overlap")
