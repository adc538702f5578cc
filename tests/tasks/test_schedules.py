"""Schedules against the reference's formula and torch's own."""

import math

import pytest
import torch
from torch.optim import SGD

from lightning_ke.tasks.schedules import cosine_with_warmup, one_cycle


def rates(scheduler, optimizer, steps):
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.fixture
def optimizer():
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.256, momentum=0.9)


def test_cosine_is_the_reference_s(optimizer):
    """Epochs 0-4 warm up linearly, then half a cosine over the other 195."""
    expected = [0.256 * (epoch + 1) / 5 for epoch in range(5)]
    expected += [0.5 * (1 + math.cos(math.pi * (epoch - 5) / 195)) * 0.256 for epoch in range(5, 200)]
    assert rates(cosine_with_warmup(optimizer, 200), optimizer, 200) == pytest.approx(expected)


def test_cosine_stays_at_its_end(optimizer):
    assert rates(cosine_with_warmup(optimizer, 4, warmup=1), optimizer, 8)[4:] == pytest.approx([0.0] * 4, abs=1e-12)


@pytest.mark.parametrize("warmup", [-1, 1.5])
def test_a_warmup_is_a_whole_number(optimizer, warmup):
    """Half an epoch would begin with twice the learning rate."""
    with pytest.raises(
        ValueError, match=f"Expected argument `warmup` to be a whole number of at least 0, but got {warmup}"
    ):
        cosine_with_warmup(optimizer, 10, warmup)


def test_one_cycle_goes_up_for_a_share_of_the_way(optimizer):
    with pytest.raises(ValueError, match=r"Expected argument `warmup` to be a share, in \[0, 1\], but got 2"):
        one_cycle(optimizer, 10, warmup=2)


@pytest.mark.parametrize("warmup", [10, 11])
def test_a_warmup_that_fills_the_schedule_is_refused(optimizer, warmup):
    with pytest.raises(
        ValueError, match=f"Expected argument `warmup` to be shorter than the schedule, 10, but got {warmup}"
    ):
        cosine_with_warmup(optimizer, 10, warmup)


def test_one_cycle_peaks_at_the_optimizer_s_rate(optimizer):
    seen = rates(one_cycle(optimizer, 10), optimizer, 10)
    assert max(seen) == pytest.approx(0.256)
    assert 0 < seen.index(max(seen)) < 5
    assert seen[-1] < 1e-3
