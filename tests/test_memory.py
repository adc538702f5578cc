"""What masks and redraws take beside the network does not grow with it: one module at a time, in pieces."""

from __future__ import annotations

import tracemalloc

import pytest
import torch
from torch import Tensor, nn

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


class Tokens(nn.Module):
    """Positions that are tiled over an image, and a token before its 4,096 places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 64, 1), nn.Linear(64, 10)
        self.position, self.token = nn.Parameter(torch.zeros(1, 64, 8, 8)), nn.Parameter(torch.zeros(1, 1, 64))

    def forward(self, image: Tensor) -> Tensor:
        places = (self.embed(image) + self.position.repeat(1, 1, 8, 8)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token, places], 1)
        tokens = torch.cat([tokens[:, :1], 2 * tokens[:, 1:]], 1)
        return self.head(torch.cat([tokens[:, :0], tokens], 1).mean(1))


class Recurrent(nn.Module):
    """An LSTM of 256 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.lstm(image.reshape(1, -1, 16)[:, :256])[0][:, -1])


@pytest.mark.parametrize("kind", [Tokens, Recurrent])
def test_channels_are_followed_without_arrays_as_large_as_activations(kind: type[nn.Module]) -> None:
    """Every array that holds a variable for each position of an activation is a MiB here."""
    network, image = kind(), torch.zeros(1, 3, 64, 64)
    ke.draw_mask(network, "kels", 0.5, image)  # what torch and Python make in their first run is not meant
    tracemalloc.start()
    ke.draw_mask(network, "kels", 0.5, image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
