"""Small networks of every kind, for the tests of flow and slim networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.flow import decide_structure
from lightning_ke.masks import Mask
from lightning_ke.slim import extract_slim
from lightning_ke.splits.base import Call
from tests.flow.attention import (
    ChannelAttention,
    CrossAttention,
    Encoder,
    FoldedWindows,
    HandWrittenAttention,
    RelativePositions,
    ScaledAttention,
    SelfAttention,
    TalkingHeads,
    TokensAndScale,
    Translator,
)


def draw(network: nn.Module, rate: float, *args: Tensor) -> Mask:
    """A KELS mask, also of networks whose weights are computed from others, which `draw_mask` refuses."""
    structure = decide_structure(network, [Call("", args)], rate)
    return Mask.from_structure(structure, {name: tuple(p.shape) for name, p in network.named_parameters()})


def proved_shares(network: nn.Module, args: tuple[Tensor, ...]) -> list[float]:
    """Share of the weights that are fit at three rates, at each of which the slim network is proved to hold just them.

    Args:
        network: The network.
        args: What it is called with.
    """
    shares = []
    for rate in (0.3, 0.5, 0.8):
        mask = draw(network, rate, *args)
        slim = extract_slim(network, mask)
        assert sum(p.numel() for p in slim.parameters()) == sum(int(mask[key].sum()) for key in mask)
        shares.append(mask.fit_share)
    assert shares[0] <= shares[1] <= shares[2]
    return shares


class Recurrent(nn.Module):
    """Token ids through an embedding, a recurrent layer and a head."""

    def __init__(self, layer: Callable[..., nn.Module], out: int, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.layer = layer(12, 10, batch_first=True, **options)
        self.head = nn.Linear(out, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(tokens))[0][:, -1])


class Shuffle(nn.Module):
    """Channels split in two, one half convolved by depth, both shuffled together, twice."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        half = width // 2
        self.stem = nn.Conv2d(3, width, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(half, half, 1), nn.Conv2d(half, half, 3, padding=1, groups=half), nn.Conv2d(half, half, 1)
            )
            for _ in range(2)
        )
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            one, other = x.chunk(2, 1)
            x = torch.stack([one, branch(other)], 2).flatten(1, 2)
        return self.head(x)


class SqueezeExcite(nn.Module):
    """A gate of one number per channel and one of one number per position."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 6, 1), nn.Conv2d(6, 16, 1)
        self.where = nn.Conv2d(2, 1, 3, padding=1)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x * self.where(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()
        return self.head(x)


class GatedUnequalParts(nn.Module):
    """One projection that is sliced into parts of remembered, unequal widths."""

    def __init__(self) -> None:
        super().__init__()
        self.parts, self.front = (12, 20), 4
        self.stem = nn.Conv2d(3, 32, 1)
        self.one, self.other = nn.Conv2d(12, 8, 1), nn.Conv2d(20, 8, 1)
        self.late = nn.Conv2d(8, 10, 1)
        self.head = nn.Conv2d(14, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.split(self.stem(x), self.parts, 1)
        y = self.one(one) + self.other(other)
        return self.head(torch.cat([self.late(y), y[:, : self.front]], 1))


class DualPath(nn.Module):
    """Sums of the front, concatenations of the rest, sliced at one remembered width, which the rest has as well."""

    def __init__(self) -> None:
        super().__init__()
        self.front = 10
        self.stem, self.one = nn.Conv2d(3, 20, 1), nn.Conv2d(20, 10, 1)
        self.two = nn.Conv2d(20, 13, 1)
        self.head = nn.Conv2d(23, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        new = self.two(x)
        added = x[:, : self.front] + self.one(x) + new[:, : self.front]
        return self.head(torch.cat([added, x[:, self.front :], new[:, self.front :]], 1))


class StandardisedWeights(nn.Module):
    """Weights that are normalised before they convolve, written slice by slice into a buffer of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 10, 3), nn.Conv2d(10, 6, 3)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        weight = self.second.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        weight = (weight - mean) / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        y = nn.functional.conv2d(x, weight, self.second.bias)
        both = torch.zeros(len(y), 2 * y.shape[1], *y.shape[2:], dtype=y.dtype, device=y.device)
        both[:, : y.shape[1]] = y
        both[:, y.shape[1] :] = y.flip(2)
        return self.head(both)


def image(size: int = 8, channels: int = 3) -> tuple[Tensor]:
    """One image of zeros."""
    return (torch.zeros(1, channels, size, size),)


def _sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


TOKENS = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
SEQUENCE = torch.zeros(2, 7, 5)


class Aggregation(nn.Module):
    """A convolution over streams, along which the channels lie beside, as CoaT ends in."""

    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.streams = nn.ModuleList(nn.Linear(5, 16) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.aggregate = nn.Conv1d(3, 1, kernel, padding=kernel // 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        streams = torch.stack([self.norm(stream(x)) for stream in self.streams], 1)
        return self.head(self.aggregate(streams.mean(2)).squeeze(1))


#: Name: (network, arguments of its forward).
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "lstm": (lambda: Recurrent(nn.LSTM, 10), (TOKENS,)),
    "lstm, two layers, both directions": (lambda: Recurrent(nn.LSTM, 20, num_layers=2, bidirectional=True), (TOKENS,)),
    "lstm, projected": (lambda: Recurrent(nn.LSTM, 6, proj_size=6), (TOKENS,)),
    "gru": (lambda: Recurrent(nn.GRU, 10), (TOKENS,)),
    "rnn": (lambda: Recurrent(nn.RNN, 10, num_layers=2), (TOKENS,)),
    "self-attention": (lambda: SelfAttention(False), (SEQUENCE,)),
    "self-attention with weights": (lambda: SelfAttention(True), (SEQUENCE,)),
    "cross-attention": (CrossAttention, (SEQUENCE,)),
    "transformer encoder": (Encoder, (SEQUENCE,)),
    "transformer encoder, norm first": (lambda: Encoder(norm_first=True, activation="gelu"), (SEQUENCE,)),
    "tied encoder and decoder": (Translator, (TOKENS, TOKENS)),
    "hand-written attention": (HandWrittenAttention, image()),
    "attention scaled by shape": (ScaledAttention, (SEQUENCE,)),
    "channels attend to channels": (ChannelAttention, (SEQUENCE,)),
    "talking heads": (TalkingHeads, (SEQUENCE,)),
    "extra tokens": (TokensAndScale, (SEQUENCE,)),
    "shuffle": (Shuffle, image()),
    "squeeze and excite": (SqueezeExcite, image()),
    "unequal parts": (GatedUnequalParts, image()),
    "dual path": (DualPath, image()),
    "folded windows": (FoldedWindows, image(4)),
    "relative positions": (RelativePositions, (torch.zeros(2, 9, 5),)),
    "aggregation": (Aggregation, (torch.zeros(2, 7, 5),)),
    "standardised weights": (StandardisedWeights, image()),
    "1-d": (
        _sequential(
            nn.Conv1d(2, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.ConvTranspose1d(8, 12, 3, stride=2), nn.GroupNorm(4, 12),
            nn.Conv1d(12, 2, 1),
        ),
        (torch.zeros(1, 2, 12),),
    ),
    "3-d": (
        _sequential(
            nn.Conv3d(2, 8, 3, padding=1), nn.BatchNorm3d(8), nn.AvgPool3d(2), nn.ConvTranspose3d(8, 8, 2, groups=4),
            nn.InstanceNorm3d(8, affine=True, track_running_stats=True), nn.Flatten(), nn.Linear(8 * 125, 3),
        ),
        (torch.zeros(1, 2, 8, 8, 8),),
    ),
    "resized": (
        _sequential(
            nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16, affine=True), nn.PReLU(16), nn.Upsample(scale_factor=2),
            nn.PixelShuffle(2), nn.Conv2d(4, 2, 1),
        ),
        image(),
    ),
    "layer norms and group norms": (
        _sequential(
            nn.Conv2d(3, 12, 1), nn.GroupNorm(1, 12), nn.ReLU(), nn.Conv2d(12, 12, 1, groups=3), nn.GroupNorm(3, 12),
            nn.Flatten(), nn.LayerNorm(12 * 16), nn.Linear(12 * 16, 8), nn.RMSNorm(8), nn.Linear(8, 2),
        ),
        image(4),
    ),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU(),
            nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 4, 3)), nn.Conv2d(4, 2, 1),
        ),
        image(),
    ),
    "weight norm as a hook": (
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        image(),
    ),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8)), nn.ReLU(), nn.Linear(8, 2)),
        (torch.zeros(1, 3),),
    ),
}  # fmt: skip
