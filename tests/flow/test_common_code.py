"""Networks as tutorials and papers' code write them: the slim network is the fit hypothesis, and something is cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_ke as ke

SEQUENCE = torch.zeros(3, 7, 5)


class Attention(nn.Module):
    """Divides the logits, not the queries, by the square root of a width that it reads off them."""

    def __init__(self, scale: Callable[[int], Any] = math.sqrt, width: int = 40, heads: int = 4) -> None:
        super().__init__()
        self.h, self.d_k, self.scale = heads, width // heads, scale
        self.stem, self.head = nn.Linear(5, width), nn.Linear(width, 3)
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (layer(x).view(len(x), -1, self.h, self.d_k).transpose(1, 2) for layer in self.linears[:3])
        logits = q @ k.transpose(-2, -1) / self.scale(q.size(-1))
        y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(len(x), -1, self.h * self.d_k)
        return self.head(x + self.linears[3](y))


def _as_tensor(width: int) -> Tensor:
    return torch.tensor(width, dtype=torch.float32).sqrt()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "logits divided by a number": (Attention, (SEQUENCE,)),
    "logits divided by a tensor": (lambda: Attention(_as_tensor), (SEQUENCE,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    network = build()
    shares = []
    for rate in (0.3, 0.5, 0.8):
        mask = ke.draw_mask(network, "kels", rate=rate, example_input=args)
        slim = ke.extract_slim(network, mask)
        assert sum(p.numel() for p in slim.parameters()) == sum(int(mask[key].sum()) for key in mask)
        shares.append(mask.fit_share)
    assert shares[0] <= shares[1] <= shares[2]
    assert shares[1] < 0.55
