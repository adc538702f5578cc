"""Networks as people write them: whatever their code does with numbers and weights, the slim network is the fit one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_ke as ke
from lightning_ke.flow.calls import record_calls, replay_calls
from lightning_ke.splits.base import Call
from tests.flow.networks import proved_shares

ROWS, SEQUENCE = torch.randn(4, 5), torch.zeros(3, 7, 5)


class Clipped(nn.Module):
    """Clips its weights whenever it runs, and looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.body.weight.data.clamp_(-0.1, 0.1)
        y = self.body(x).relu()
        return self.head(y * 2 if y.mean() > 1e6 else y)


class Bayesian(nn.Module):
    """Weights are drawn around their means; it returns what that costs: a mean over all weights, those kept."""

    def __init__(self) -> None:
        super().__init__()
        self.spread, self.mean = nn.Parameter(torch.zeros(16, 5)), nn.Parameter(torch.zeros(16, 5))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spread = F.softplus(self.spread)
        weight = self.mean + spread * torch.randn_like(spread)
        cost = (spread**2 + self.mean**2 - 2 * spread.log()).sum()
        return self.head((x @ weight.t()).relu()), cost


class CosineLayers(nn.Module):
    """Rows of weights are divided by their lengths, which are zero for what is not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(width, 16)) for width in (16, 16, 3))
        self.stem = nn.Linear(5, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for weight in self.weights:
            x = 10 * F.linear(F.normalize(x, dim=-1), weight / weight.norm(dim=1, keepdim=True))
        return x


class LearnedKeys(nn.Module):
    """A learned key and value beside those of the sequence; queries and keys share the factor of their width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, add_bias_kv=True, add_zero_attn=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "clipped": (Clipped, (ROWS,)),
    "Bayesian": (Bayesian, (ROWS,)),
    "cosine layers": (CosineLayers, (ROWS,)),
    "learned keys": (LearnedKeys, (SEQUENCE,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    assert proved_shares(build(), args)[1] < 0.57


def test_a_network_that_clips_its_weights_is_left_as_it_was() -> None:
    network = Clipped()
    before = [parameter.clone() for parameter in network.parameters()]
    mask = ke.draw_mask(network, "kels", rate=0.5, example_input=ROWS)
    ke.extract_slim(network, mask)
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))


def test_inputs_of_a_proof_lie_where_the_example_does() -> None:
    class Logarithm(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = super().forward(x.log())
            return result

    network, positive = Logarithm(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)), torch.rand(4, 5) + 0.5
    ke.extract_slim(network, ke.draw_mask(network, "kels", rate=0.5, example_input=positive))
    (replayed,) = replay_calls(record_calls([Call("", (positive,))]), torch.Generator().manual_seed(0))
    assert replayed.args[0].min() >= positive.min()
    assert replayed.args[0].max() <= positive.max()
