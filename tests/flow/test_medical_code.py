"""Of what libraries for medical images write the slim network is the fit hypothesis, and something is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.flow.medical_code import Detecting, FilledUp, NoFindings, Reconstructing, SideBySide
from tests.flow.networks import proved_shares

IMAGE = torch.zeros(2, 3, 8, 8)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "a width that is read in train mode only": (Reconstructing, (IMAGE,)),
    "layers side by side, added to what was before": (SideBySide, (IMAGE,)),
    "no detection": (Detecting, (IMAGE,)),
    "channels filled up to a width in the code": (FilledUp, (IMAGE,)),
    "a head without outputs": (NoFindings, (IMAGE,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    assert proved_shares(build(), args)[1] < 0.57
