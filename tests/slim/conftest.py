"""A small slim network for the tests of files."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lightning_ke as ke

IMAGE = torch.zeros(1, 3, 32, 32)


class Small(nn.Module):
    """Statistics, a tied weight, a buffer outside of the state_dict, a residual stream."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.one = nn.Linear(width, width, bias=False)
        self.two = nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.register_buffer("gain", torch.linspace(0.5, 1.5, width), persistent=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu().mean((2, 3)) * self.gain
        return self.head(x + self.two(self.one(x).relu()))


@pytest.fixture
def small() -> tuple[nn.Module, ke.Mask]:
    """A slim network that differs in every value from a fresh one, and its mask."""
    dense = Small()
    mask = ke.draw_mask(dense, rate=0.5, example_input=IMAGE)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.normal_()
        dense.norm.running_mean.normal_()
        dense.norm.running_var.uniform_(1, 2)
        dense.norm.num_batches_tracked.fill_(7)
    return ke.extract_slim(dense, mask), mask
