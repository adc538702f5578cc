"""Edge-popup finds weights that already solve the task, and leaves the network alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.splits import FixedMask, draw_mask, find_supermask

LABELLED = tuple[Tensor, Tensor]


def task() -> LABELLED:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)
    )


@torch.no_grad()
def masked_accuracy(net: nn.Module, mask: Mask, batch: LABELLED) -> float:
    kept = {name: p * mask[name] for name, p in net.named_parameters()}
    net.train()  # the first statistics of the norm are of nothing
    net[3].eval()
    return float((torch.func.functional_call(net, kept, batch[0]).argmax(1) == batch[1]).float().mean())


def state(net: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in net.state_dict().items()} | {
        f"{name} mode": torch.tensor(module.training) for name, module in net.named_modules()
    }


def test_untrained_weights_that_are_chosen_solve_the_task_and_randomly_chosen_ones_do_not() -> None:
    net, batch = network(), task()
    mask = find_supermask(net, [batch], rate=0.5, epochs=100, lr=10.0)
    assert masked_accuracy(net, mask, batch) > 0.9
    assert masked_accuracy(net, draw_mask(net, "wels", 0.5), batch) < 0.7
    for name in ("0.weight", "4.weight", "6.weight"):
        assert int(mask[name].sum()) == math.ceil(0.5 * mask[name].numel())
    assert all(mask[name].all() for name in mask if name.endswith("bias"))
    assert draw_mask(net, FixedMask(mask)) == mask


def test_network_and_random_streams_are_left_alone() -> None:
    net, batch = network(), task()
    net[4].eval()
    before, stream = state(net), torch.get_rng_state()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch), 64, shuffle=True)
    first = find_supermask(net, loader, epochs=2)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[name]) for name, value in state(net).items())
    assert all(p.grad is None for p in net.parameters())
    torch.rand(3)
    assert find_supermask(net, loader, epochs=2) == first
    assert find_supermask(net, loader, epochs=2, seed=1) != first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_searched(dtype: torch.dtype) -> None:
    net, (x, labels) = network().to(dtype), task()
    mask = find_supermask(net, [(x.to(dtype), labels)], rate=0.5, epochs=30, lr=10.0)
    assert masked_accuracy(net, mask, (x.to(dtype), labels)) > 0.9


@pytest.mark.parametrize(("batches", "epoch"), [([], 1), (iter([task()]), 2)])
def test_a_loader_that_is_empty_or_used_up_is_refused(batches: Any, epoch: int) -> None:
    with pytest.raises(ValueError, match=f"`loader` to hold batches in each of 3 epochs, .* in epoch {epoch}"):
        find_supermask(network(), batches, epochs=3)


def test_a_target_and_frozen_weights() -> None:
    net, batch = network(), task()
    for p in net.parameters():
        p.requires_grad_(False)
    with torch.no_grad():
        mask = find_supermask(net, [batch], epochs=1, target="4")
    assert [name for name, member in mask.items() if not member.all()] == ["4.weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.0}, r"`rate` to be in \(0, 1\), but got 1\.0"),
        ({"epochs": 0}, r"`epochs` to be a whole number of at least 1"),
        ({"lr": -1.0}, r"`lr` to be a positive number, but got -1\.0"),
        ({"lr": "1"}, "`lr` to be a positive number, but got '1'"),
        ({"target": "1"}, "have weights that can be masked"),
        ({"target": "9"}, "`target` to name a submodule"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_supermask(network(), [task()], **arguments)
