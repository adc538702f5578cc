"""Private copies: nothing is shared with the network, and what is shared inside it stays shared."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import without_data


class Parts(nn.Module):
    """A module that holds of everything: tied weights, a cycle, shared containers, tensors in a dict, nested lists."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight
        self.norm = nn.BatchNorm1d(4)
        self.bias = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("table", torch.arange(4))
        self.inner = nn.ModuleList([nn.LSTM(4, 4), nn.Softmax(1), nn.MultiheadAttention(4, 2)])
        self.parents = [self]
        self.cache: dict[Any, Any] = {"tensor": torch.ones(2), 3: [1, {2}]}
        self.norm.cache, self.empty = self.cache, []
        self.one.empty = self.empty


def test_nothing_is_shared_with_the_original() -> None:
    network = Parts()
    hook = network.one.register_forward_hook(lambda *_: None)
    copied = private_copy(network, without_data)
    for old, new in zip(network.modules(), copied.modules(), strict=True):
        assert type(old) is type(new)
        assert old is not new
        for name, value in vars(old).items():
            if isinstance(value, (dict, list, set, Tensor)):
                assert vars(new)[name] is not value, name
    assert {tensor.device.type for tensor in copied.parameters()} == {"meta"}
    assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in network.parameters()]
    assert torch.equal(copied.table, network.table)
    assert list(copied.one._forward_hooks) == [hook.id]
    copied.one._forward_hooks.clear()
    assert list(network.one._forward_hooks) == [hook.id]


def test_what_is_shared_inside_stays_shared() -> None:
    copied = private_copy(Parts(), without_data)
    assert copied.other.weight is copied.one.weight
    assert copied.parents[0] is copied
    assert copied.norm.cache is copied.cache
    assert copied.one.empty is copied.empty
    assert copied.cache[3] == [1, {2}]
    assert torch.equal(copied.cache["tensor"], torch.ones(2))


def test_a_module_is_copied_in_its_own_way() -> None:
    class Own(nn.Linear):
        def __deepcopy__(self, memo: dict[int, Any]) -> Own:
            new = Own(self.in_features, self.out_features)
            new.weight = copy.deepcopy(self.weight, memo)
            new.marked = True
            return new

    network = nn.Sequential(Own(3, 2), nn.ReLU())
    copied = private_copy(network, without_data)
    assert copied[0].marked
    assert copied[0].weight.is_meta
    assert not hasattr(network[0], "marked")


def test_a_copy_runs_like_the_original() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 2)).eval()
    copied = private_copy(network, lambda tensor: copy.deepcopy(tensor.detach()))
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(copied(x), network(x))
