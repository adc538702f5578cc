"""Running a network as its slim network: what the slim network computes, and where the gradients go."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from lightning_ke import draw_mask, extract_slim
from lightning_ke.slim.within import SlimWithin


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.recur = nn.GRU(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, letters):
        return self.head(self.recur(self.embed(letters))[0][:, -1])


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.BatchNorm2d(12),
        nn.ReLU(), nn.ConvTranspose2d(12, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


NETWORKS = {
    "convolutions": (convolutional, lambda: torch.randn(4, 3, 8, 8)),
    "recurrent": (Recurrent, lambda: torch.randint(0, 11, (4, 7))),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True),
        lambda: torch.randn(4, 5, 16),
    ),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=4), lambda: torch.randn(4, 3, 32, 32)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_slim_network_does_with_its_gradients_and_statistics(name):
    torch.manual_seed(0)
    build, make = NETWORKS[name]
    network, inputs = build().train(), make()
    mask = draw_mask(network, split="kels", rate=0.5, example_input=inputs)
    slim = extract_slim(network, mask).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sizes = repr(network)
    within = SlimWithin(network, mask.structure)
    wanted, got = slim(inputs), within(inputs)
    assert torch.allclose(got, wanted, atol=1e-5, rtol=1e-4)
    assert repr(network) == sizes  # it says its dense sizes again
    wanted.pow(2).sum().backward()
    got.pow(2).sum().backward()
    structure = mask.structure
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]), name
        narrow = structure.narrow(name, parameter.grad)
        own = dict(slim.named_parameters())[name].grad
        if name in structure.scales:  # the slim parameter is the dense one times a constant
            dim, factors = structure.scales[name]
            own = own * factors.view([-1 if at == dim else 1 for at in range(own.dim())])
        assert torch.allclose(narrow, own, atol=1e-4, rtol=1e-3), name
        if name in structure.cuts:
            assert not parameter.grad[~structure.member(name)].any(), name
    for name, buffer in network.named_buffers():
        assert torch.allclose(
            structure.narrow(name, buffer).float(), dict(slim.named_buffers())[name].float(), atol=1e-5
        )
        if name in structure.cuts:
            outside = ~structure.member(name)
            assert torch.equal(buffer[outside], before[name][outside]), name


def test_the_network_is_whole_again_when_a_call_fails():
    network = convolutional()
    inputs = torch.randn(2, 3, 8, 8)
    mask = draw_mask(network, split="kels", rate=0.5, example_input=inputs)
    twin = copy.deepcopy(network)
    with pytest.raises(RuntimeError):
        SlimWithin(network, mask.structure)(torch.randn(2, 4, 8, 8))
    assert repr(network) == repr(twin)
    assert torch.equal(network.eval()(inputs), twin.eval()(inputs))
