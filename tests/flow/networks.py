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


class SelfAttention(nn.Module):
    """torch's own attention inside a residual stream."""

    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.attention(x, x, x, need_weights=self.need_weights)[0])


class CrossAttention(nn.Module):
    """Queries, keys and values of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values = nn.Linear(5, 16), nn.Linear(5, 8), nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(16, 4, kdim=8, vdim=12, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(self.queries(x), self.keys(x), self.values(x))[0])


class Encoder(nn.Module):
    """torch's own transformer encoder."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **options)
        self.stem = nn.Linear(5, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.stem(x)).mean(1))


class Translator(nn.Module):
    """Encoder and decoder whose output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.position = nn.Parameter(torch.zeros(1, 5, 16))
        self.transformer = nn.Transformer(16, 4, 1, 1, 20, batch_first=True)
        self.head = nn.Linear(16, 20)
        self.head.weight = self.embedding.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        embedded = (self.embedding(tokens) + self.position for tokens in (source, target))
        return self.head(self.transformer(*embedded))


class HandWrittenAttention(nn.Module):
    """A vision-transformer block: fused projection, normed queries, class token, layer scale, remembered head size."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 5, width))
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm, self.k_norm = nn.LayerNorm(self.head_dim), nn.LayerNorm(self.head_dim)
        self.bias = nn.Parameter(torch.zeros(heads, 5, 5))
        self.out = nn.Linear(width, width)
        self.gamma = nn.Parameter(1e-6 * torch.ones(width))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = self.q_norm(q) * self.scale @ self.k_norm(k).transpose(-2, -1) + self.bias
        y = (logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        return self.head((x + self.gamma * self.out(y))[:, 0])


class ScaledAttention(nn.Module):
    """An attention that takes its scale from the shape of what it sees, behind normed queries."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 24), nn.Linear(8, 2)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.stem(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(self.norm(q), k, v)
        return self.head(y.transpose(1, 2).flatten(2))


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


class FoldedWindows(nn.Module):
    """Heads attend inside overlapping windows, which are folded to an image of the input's width again."""

    def __init__(self, width: int = 14, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.stem, self.attention, self.values = (
            nn.Conv2d(3, width, 1),
            nn.Linear(width, 81 * heads),
            nn.Linear(width, width),
        )
        self.out = nn.Sequential(nn.Linear(width, 60), nn.Linear(60, width))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        batch, high, wide, width = x.shape
        windows = nn.functional.unfold(self.values(x).permute(0, 3, 1, 2), 3, padding=1)
        v = windows.reshape(batch, self.heads, width // self.heads, 9, high * wide).permute(0, 1, 4, 3, 2)
        weights = self.attention(x).reshape(batch, high * wide, self.heads, 9, 9).permute(0, 2, 1, 3, 4).softmax(-1)
        y = (weights @ v).permute(0, 1, 4, 3, 2).reshape(batch, width * 9, high * wide)
        return self.head(x + self.out(nn.functional.fold(y, (high, wide), 3, padding=1).permute(0, 2, 3, 1)))


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


class ChannelAttention(nn.Module):
    """Channels attend to channels, with a temperature per head: a tensor with channels along two dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.head = nn.Linear(5, 16), nn.Linear(16, 48), nn.Linear(16, 2)
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)
        y = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1) @ v
        return self.head(x + y.permute(0, 3, 1, 2).reshape(batch, tokens, width))


class TalkingHeads(nn.Module):
    """Heads are mixed before and after the softmax: one number per head meets the heads' channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.head = nn.Linear(5, 16), nn.Linear(16, 48), nn.Linear(16, 2)
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
        logits = self.before((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).softmax(-2)
        y = self.after(logits).permute(0, 3, 1, 2) @ v
        return self.head(x + y.transpose(1, 2).reshape(batch, tokens, width))


class TokensAndScale(nn.Module):
    """Extra tokens before the patches, so that a tensor has two kinds of labels; an attention scaled by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.position = nn.Linear(5, 16), nn.Parameter(torch.zeros(1, 9, 16))
        self.register = nn.Parameter(torch.zeros(1, 2, 16))
        self.norm, self.qkv, self.out, self.head = (
            nn.LayerNorm(16),
            nn.Linear(16, 48),
            nn.Linear(16, 16),
            nn.Linear(16, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.register.expand(len(x), -1, -1), self.stem(x)], 1) + self.position
        qkv = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.head(x + self.out(y.transpose(1, 2).flatten(2)))


def image(size: int = 8, channels: int = 3) -> tuple[Tensor]:
    """One image of zeros."""
    return (torch.zeros(1, channels, size, size),)


def _sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


TOKENS = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
SEQUENCE = torch.zeros(2, 7, 5)


#: name: (network, arguments of its forward)
class RelativePositions(nn.Module):
    """Attention whose queries also meet a table of relative positions in one product of all heads, as in HaloNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.table = nn.Parameter(torch.randn(9, 8))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, tokens, _ = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, 2, -1).permute(2, 0, 3, 1, 4).reshape(3, batch * 2, tokens, -1)
        q, k, v = parts.unbind(0)
        y = (q @ k.transpose(1, 2) + q @ self.table.t()).softmax(-1) @ v
        return self.head(x + self.out(y.view(batch, 2, tokens, -1).transpose(1, 2).reshape(batch, tokens, -1)))


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
