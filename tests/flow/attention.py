"""Small networks with attention of every kind, for the tests of flow and slim networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
