"""What masks and redraws take beside the network does not grow with it: one module at a time, in pieces."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lightning_ke as ke
from tests.memory import PeakMemory

WIDTH = 1024


@pytest.fixture
def network() -> nn.Module:
    """Layers of two sizes, the largest of 4 MiB."""
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(3)), nn.Linear(WIDTH, 8))


@pytest.mark.parametrize("split", ["kels", "wels"])
def test_a_redraw_makes_pieces_that_do_not_grow_with_the_network(network: nn.Module, split: str) -> None:
    """Fresh values, a mask, and the mask again as integers, of 2 ** 16 weights."""
    mask = ke.draw_mask(network, split, 0.5, torch.zeros(1, WIDTH))
    with PeakMemory() as memory:
        ke.redraw(network, mask, generation=2)
    assert memory.peak <= 2**20


@pytest.mark.parametrize("split", ["kels", "wels"])
def test_a_reset_that_needs_whole_tensors_takes_one_module_at_a_time(network: nn.Module, split: str) -> None:
    mask = ke.draw_mask(network, split, 0.5, torch.zeros(1, WIDTH))
    weights = 4 * WIDTH * WIDTH
    with PeakMemory() as memory:
        ke.redraw(network, mask, generation=2, reset="kaiming_normal")
    assert memory.largest <= weights
    assert memory.peak <= 1.25 * weights, "one module's fresh values, and small pieces of them"


def test_a_mask_of_weights_is_drawn_in_less_than_its_weights_take() -> None:
    """A bool and some bits for each weight; its random numbers come in pieces."""
    layer = nn.Linear(4 * WIDTH, 4 * WIDTH, bias=False)
    with PeakMemory() as memory:
        mask = ke.draw_mask(layer, "wels", 0.5)
    assert memory.peak <= 0.5 * layer.weight.nbytes
    assert mask.nbytes <= layer.weight.nbytes / 32 + 1
