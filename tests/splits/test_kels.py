"""The split that keeps kernels."""

from __future__ import annotations

import copy
import gc
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from lightning_ke.flow import FlowError
from lightning_ke.masks import Mask
from lightning_ke.packing import Channels
from lightning_ke.redrawing import redraw
from lightning_ke.splits import draw_mask


class Residual(nn.Module):
    """Three input channels, a residual connection, five outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.bn = nn.BatchNorm2d(7)
        self.block = nn.Sequential(nn.Conv2d(7, 9, 3, padding=1), nn.ReLU(), nn.Conv2d(9, 7, 3, padding=1))
        self.fc = nn.Linear(7, 5)

    def forward(self, x):
        x = self.bn(self.stem(x))
        return self.fc((x + self.block(x)).mean((2, 3)))


IMAGE = torch.zeros(2, 3, 8, 8)


def kels(model: nn.Module, rate: float = 0.3, **options) -> Mask:
    return draw_mask(model, "kels", rate, example_input=IMAGE, **options)


def test_the_first_kernels_of_the_first_filters_are_fit() -> None:
    mask = kels(Residual())
    kept = {name: member.nonzero().amax(0).add(1).tolist() for name, member in mask.items()}
    assert kept == {
        "stem.weight": [3, 3, 3, 3],  # all three input channels
        "stem.bias": [3],
        "bn.weight": [3],
        "bn.bias": [3],
        "block.0.weight": [3, 3, 3, 3],
        "block.0.bias": [3],
        "block.2.weight": [3, 3, 3, 3],
        "block.2.bias": [3],
        "fc.weight": [5, 3],  # all outputs
        "fc.bias": [5],
    }
    assert all(int(member.sum()) == np.prod(kept[name]) for name, member in mask.items())
    assert mask.structure is not None


@pytest.mark.parametrize(("rate", "parameters"), [(0.3, 1_033_942), (0.5, 2_825_094), (0.8, 7_219_638)])
def test_the_fit_hypothesis_of_resnet18_has_the_published_size(rate: float, parameters: int) -> None:
    net = models.resnet18(num_classes=102)
    mask = draw_mask(net, rate=rate, example_input=torch.zeros(1, 3, 64, 64))
    assert sum(mask.entry(name).count() for name in mask) == parameters


def test_the_mask_of_resnet50_needs_less_than_a_thousandth_of_the_weights_memory() -> None:
    net = models.resnet50()
    mask = draw_mask(net, example_input=torch.zeros(1, 3, 64, 64))
    assert mask.nbytes < 0.001 * 4 * sum(parameter.numel() for parameter in net.parameters())
    assert isinstance(mask.entry("layer4.2.conv3.weight"), Channels)


def test_biases_and_norms_follow_their_channel_in_a_redraw() -> None:
    net = Residual()
    mask = kels(net)
    with torch.no_grad():
        for value in (*net.parameters(), net.bn.running_mean, net.bn.running_var):
            value.fill_(5)
    report = redraw(net, mask, generation=2, norm="reset")
    assert report.redrawn["stem.bias"] == report.redrawn["bn.weight"] == 4
    assert "fc.bias" not in report.redrawn
    assert net.bn.running_mean.tolist() == [5, 5, 5, 0, 0, 0, 0]
    assert net.bn.weight.tolist() == [5, 5, 5, 1, 1, 1, 1]
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter == 5, mask[name])


def test_a_target_is_cut_inside_and_kept_at_its_borders() -> None:
    mask = kels(Residual(), target="block")
    cut = [name for name, member in mask.items() if not member.all()]
    assert cut == ["block.0.weight", "block.0.bias", "block.2.weight"]
    assert mask["block.2.weight"].nonzero().amax(0).add(1).tolist() == [7, 3, 3, 3]


@pytest.mark.parametrize("example_input", [IMAGE, (IMAGE,), [IMAGE], {"x": IMAGE}])
def test_example_inputs_are_read_as_lightning_reads_them(example_input) -> None:
    assert draw_mask(Residual(), rate=0.3, example_input=example_input) == kels(Residual())


def test_the_seed_and_the_weights_do_not_matter_and_neither_does_a_wrapper() -> None:
    net = Residual()
    assert kels(net) == kels(Residual(), seed=7) == kels(torch.compile(Residual())) == kels(nn.DataParallel(net))


def test_drawing_leaves_the_network_its_mode_and_the_random_streams_alone() -> None:
    net = Residual().train()
    net.block.eval()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    kels(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.block.training
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("net", [nn.Linear(3, 5), nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())])
def test_a_network_of_inputs_and_outputs_alone_has_nothing_to_split(net: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"weights that split 'kels' can redraw, but all of it would be fit"):
        draw_mask(net, example_input=torch.zeros(2, 3))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was_also_by_a_network_that_fails(enabled: bool) -> None:
    class Failing(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states.append(gc.isenabled())
            if fails:
                raise RuntimeError("no")
            return super().forward(x)

    before, states = gc.isenabled(), []
    (gc.enable if enabled else gc.disable)()
    try:
        for fails in (False, True):
            with pytest.raises(FlowError, match="no") if fails else nullcontext():
                draw_mask(Failing(nn.Linear(4, 8), nn.Linear(8, 2)), "kels", 0.5, torch.zeros(1, 4))
            assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert states
    assert not any(states)
