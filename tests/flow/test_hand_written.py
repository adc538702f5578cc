"""Networks as people write them: whatever their code does with numbers and weights, the slim network is the fit one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d, nms, roi_align

import lightning_ke as ke
from lightning_ke.flow.calls import record_calls, replay_calls
from lightning_ke.splits.base import Call
from tests.flow.networks import proved_shares

ROWS, SEQUENCE, IMAGE = torch.randn(4, 5), torch.zeros(3, 7, 5), torch.zeros(2, 3, 8, 8)


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


class Distances(nn.Module):
    """Distances to prototypes, whose rows are bounded, and a bilinear layer between two views of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Linear(5, 16), nn.Linear(5, 12), nn.Bilinear(16, 12, 10)
        self.prototypes = nn.Embedding(6, 10, max_norm=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(self.both(self.left(x), self.right(x)), self.prototypes(torch.arange(6)))


class BoundedConv(nn.Conv2d):
    """EEGNet's depthwise convolution, whose filters are bounded and quantised one by one."""

    def __init__(self) -> None:
        super().__init__(8, 16, 3, groups=8)
        self.register_buffer("scales", torch.full((16,), 0.05))
        self.register_buffer("zeros", torch.zeros(16, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 1.0)
        x = torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(self.weight, self.scales, self.zeros, 0, -128, 127)
        return F.conv2d(x, weight, self.bias, groups=self.groups)


class Regions(nn.Module):
    """A detector: regions are proposed, chosen, cut out and classified; a deformable convolution before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.places, self.proposals = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 18, 1), nn.Conv2d(12, 5, 1)
        self.body, self.hidden, self.head = DeformConv2d(8, 12, 3, padding=1), nn.Linear(48, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = self.body(x, self.places(x))
        scores, corner, size = self.proposals(x)[0].flatten(1).split([1, 2, 2])
        boxes = torch.cat([corner.sigmoid() * 4, corner.sigmoid() * 4 + size.sigmoid() * 4 + 1]).t()
        chosen = boxes[nms(boxes, scores[0], 0.7)[:4]]
        return self.head(self.hidden(roi_align(x, [chosen] * len(x), 2).flatten(1)).relu()), chosen


class SparseGraph(nn.Module):
    """A graph convolution whose adjacency matrix is sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 16), nn.Linear(16, 3)
        self.register_buffer("edges", (torch.arange(16).view(4, 4) % 3 == 0).float().to_sparse())

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.head(torch.sparse.mm(edges, self.stem(torch.sparse.mm(self.edges, x))).relu())


class OwnLoss(nn.Module):
    """Returns its loss, as the models of transformers do, and a difference between hidden channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(5, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        hidden = self.stem(x).relu()
        again = self.body(hidden)
        logits = self.head(again)
        return {"loss": F.cross_entropy(logits, labels) + F.mse_loss(again, hidden), "logits": logits}


class NoisyLinear(nn.Module):
    """Explores by noise on its weights, in train mode alone (Fortunato et al. 2018)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight, self.spread = nn.Parameter(torch.randn(after, before)), nn.Parameter(torch.ones(after, before))
        self.register_buffer("noise", torch.randn(after, before))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.spread * self.noise if self.training else self.weight)


class Cell(nn.Module):
    """Keeps the width of its first hidden state as a number of its own."""

    def __init__(self, hidden_dim: int = 16) -> None:
        super().__init__()
        self.hidden_dim, self.cell, self.head = hidden_dim, nn.GRUCell(5, hidden_dim), nn.Linear(hidden_dim, 3)

    def first(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(len(x))
        for step in range(x.shape[1]):
            hidden = self.cell(x[:, step], hidden)
        return self.head(hidden)


class DenseExperts(nn.Module):
    """All experts are computed at once, and their channels lie side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Linear(5, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.up, self.down = nn.Parameter(torch.randn(3, 16, 20)), nn.Parameter(torch.randn(3, 20, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        each = torch.einsum("btd,edh->bteh", x, self.up).relu()
        return self.head((torch.einsum("bteh,ehd->bted", each, self.down) * self.gate(x).unsqueeze(-1)).sum(2) + x)


class Splines(nn.Module):
    """A Kolmogorov-Arnold layer: every pair of channels has weights of its own at each place of a grid."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.register_buffer("grid", torch.linspace(-1, 1, 5))
        self.weight = nn.Parameter(torch.randn(after, before, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bik,oik->bo", (-((x.unsqueeze(-1) - self.grid) ** 2)).exp(), self.weight)


class OuterProduct(nn.Module):
    """Bilinear pooling: every channel of one network with every one of the other, flattened and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 24, 3), nn.Conv2d(3, 4, 3), nn.Linear(96, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.einsum("bcl,bdl->bcd", self.left(x).flatten(2), self.right(x).flatten(2)).flatten(1)
        return self.head(F.normalize(both * (both.abs() + 1e-8).sqrt()))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "clipped": (Clipped, (ROWS,)),
    "Bayesian": (Bayesian, (ROWS,)),
    "cosine layers": (CosineLayers, (ROWS,)),
    "learned keys": (LearnedKeys, (SEQUENCE,)),
    "distances": (Distances, (ROWS,)),
    "bounded filters": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), BoundedConv(), nn.Conv2d(16, 2, 1)), (IMAGE,)),
    "regions": (Regions, (IMAGE,)),
    "sparse graph": (SparseGraph, (ROWS, torch.eye(4).to_sparse())),
    "noisy weights": (lambda: nn.Sequential(NoisyLinear(5, 16), nn.ReLU(), NoisyLinear(16, 3)), (ROWS,)),
    "first hidden state": (Cell, (SEQUENCE,)),
    "dense experts": (DenseExperts, (SEQUENCE,)),
    "splines": (lambda: nn.Sequential(Splines(5, 16), Splines(16, 3)), (ROWS,)),
    "outer product": (OuterProduct, (IMAGE,)),
    "groups behind a local norm": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.LocalResponseNorm(3), nn.Conv2d(12, 64, 3, groups=2), nn.Conv2d(64, 3, 1)
        ),
        (IMAGE,),
    ),
    "transposed groups": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 24, 3, groups=3),
            nn.ReLU(),
            nn.ConvTranspose2d(24, 24, 3, groups=4),
            nn.Conv2d(24, 2, 1),
        ),
        (IMAGE,),
    ),
    "own loss": (OwnLoss, (ROWS, torch.tensor([0, 1, 2, 1]))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    assert proved_shares(build(), args)[1] < 0.57


def test_noise_on_weights_is_as_wide_as_they_are() -> None:
    network = nn.Sequential(NoisyLinear(5, 16), nn.ReLU(), NoisyLinear(16, 3))
    slim = ke.extract_slim(network, ke.draw_mask(network, "kels", rate=0.5, example_input=ROWS))
    slim.train()(ROWS).sum().backward()
    assert {name: tuple(tensor.shape) for name, tensor in slim.state_dict().items() if name[0] == "0"} == {
        "0.weight": (8, 5),
        "0.spread": (8, 5),
        "0.noise": (8, 5),
    }


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
