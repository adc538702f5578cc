"""How strong channels are is heard from the training's own forwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_ke.activity import ActivityGatherer, activity_of
from lightning_ke.splits import Call


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.deep = nn.Conv2d(4, 4, 1, groups=4)
        self.up = nn.ConvTranspose2d(4, 2, 2)
        self.head = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.up(self.deep(self.conv(x))).mean((2, 3)))


def test_what_is_heard_is_the_sum_of_the_absolute_inputs_of_every_layer() -> None:
    net, gatherer = Network(), ActivityGatherer()
    inputs: dict[str, list[torch.Tensor]] = {"conv": [], "up": [], "head": []}
    for name, heard in inputs.items():
        net.get_submodule(name).register_forward_pre_hook(lambda _, args, heard=heard: heard.append(args[0].detach()))
    for _ in range(3):
        gatherer.listen(net, epoch=2)
        net(torch.randn(5, 2, 6, 6)).sum().backward()
        gatherer.close()
    assert set(gatherer.sums) == {"conv.weight", "up.weight", "head.weight"}, "a grouped layer is left out"
    for name, seen in inputs.items():
        wanted = torch.cat(seen).abs().transpose(0, 1).flatten(1).sum(1)
        torch.testing.assert_close(gatherer.sums[f"{name}.weight"], wanted)


def test_nothing_is_heard_between_batches_and_of_other_networks() -> None:
    net, gatherer = Network(), ActivityGatherer()
    gatherer.listen(net, epoch=0)
    Network()(torch.randn(1, 2, 6, 6))
    gatherer.close()
    net(torch.randn(1, 2, 6, 6))
    assert gatherer.sums == {}
    assert not net.conv._forward_pre_hooks


def test_another_epoch_starts_over_and_a_saved_one_goes_on() -> None:
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    whole, resumed = ActivityGatherer(), ActivityGatherer()
    for epoch in (0, 1, 1):
        whole.listen(net, epoch)
        net(x * (1 + epoch))
        whole.close()
        if epoch == 1 and not resumed.sums:
            resumed.load_state_dict(whole.state_dict())
    resumed.listen(net, 1)
    net(x * 2)
    resumed.close()
    torch.testing.assert_close(whole.sums["weight"], 4 * x.abs().sum(0))
    assert torch.equal(resumed.sums["weight"], whole.sums["weight"])


def test_what_overflows_says_nothing() -> None:
    net, gatherer = nn.Linear(2, 2), ActivityGatherer()
    gatherer.listen(net, 0)
    net(torch.tensor([[float("inf"), 1.0]]))
    gatherer.close()
    assert gatherer.sums["weight"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("training", [True, False])
def test_hearing_an_example_leaves_the_network_as_it_was(training: bool) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 1)).train(training)
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(4, 3)
    state = torch.get_rng_state()
    assert set(activity_of(net, [Call("", (x,))])) == {"0.weight", "3.weight"}
    assert [module.training for module in net] == [training, training, False, training]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
