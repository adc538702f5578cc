"""Of what libraries for medical images write the slim network is the fit hypothesis, and something is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import lightning_ke as ke
from tests.flow.medical_code import DeeplySupervised, Detecting, FilledUp, NoFindings, Reconstructing, SideBySide
from tests.flow.networks import proved_shares

IMAGE = torch.zeros(2, 3, 8, 8)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "a width that is read in train mode only": (Reconstructing, (IMAGE,)),
    "layers side by side, added to what was before": (SideBySide, (IMAGE,)),
    "supervision that is returned in train mode only": (DeeplySupervised, (IMAGE,)),
    "no detection": (Detecting, (IMAGE,)),
    "channels filled up to a width in the code": (FilledUp, (IMAGE,)),
    "a head without outputs": (NoFindings, (IMAGE,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    assert proved_shares(build(), args)[1] < 0.57


def test_heads_of_deep_supervision_are_as_wide_in_the_slim_network() -> None:
    network = DeeplySupervised()
    slim: Any = ke.extract_slim(network, ke.draw_mask(network, "kels", rate=0.5, example_input=IMAGE))
    assert slim.train()(IMAGE).shape == network.train()(IMAGE).shape
