"""Attentions whose heads are kept or dropped as a whole, because nothing inside of a head can be dropped."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ke.slim import SlimError, extract_slim
from lightning_ke.splits import draw_mask

TOKENS = torch.zeros(2, 5, 7)


class Rotary(nn.Module):
    """Self-attention under rotary embeddings.

    Args:
        fixed: Whether its code names the number of heads itself.
        own_width: Whether it takes the width of its heads side by side from an attribute, not from its input.
    """

    def __init__(self, heads: int = 4, width: int = 24, fixed: bool = False, own_width: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = heads, width // heads, width
        self.fixed, self.own_width = fixed, own_width
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def rotated(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[2]) + 1.0, torch.arange(self.head_dim) + 1.0)
        left, right = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-right, left], -1) * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = 4 if self.fixed else self.num_heads
        q, k, v = self.qkv(x).reshape(batch, length, 3, heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v)
        return self.proj(x.transpose(1, 2).reshape(batch, length, self.attn_dim if self.own_width else width))


class PartlyRotary(nn.Module):
    """Self-attention that turns some channels of each head alone, and whose code counts heads by their width.

    Args:
        width: How many channels enter.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.head_dim, self.turned = 6, 2
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def rotated(self, x: Tensor) -> Tensor:
        turned, rest = x[..., : self.turned], x[..., self.turned :]
        angles = torch.outer(torch.arange(x.shape[2]) + 1.0, torch.arange(2) + 1.0)
        left, right = turned.chunk(2, -1)
        return torch.cat([turned * angles.cos() + torch.cat([-right, left], -1) * angles.sin(), rest], -1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2) for part in (self.q, self.k, self.v))
        x = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v).transpose(1, 2)
        return self.proj(x.reshape(*x.shape[:2], -1))


class Blocks(nn.Module):
    """Two residual blocks between an embedding and a head."""

    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(7, 24), nn.Linear(24, 3)
        self.attentions = nn.ModuleList([Rotary(**options) for _ in range(2)])
        self.mlps = nn.ModuleList([nn.Sequential(nn.Linear(24, 20), nn.GELU(), nn.Linear(20, 24)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            x = x + attention(x)
            x = x + mlp(x)
        return self.head(x.mean(1))


@pytest.mark.parametrize("own_width", [False, True])
@pytest.mark.parametrize(("rate", "heads"), [(0.3, 2), (0.5, 2), (0.75, 3), (0.8, 4)])
def test_whole_heads_are_dropped_exactly(rate: float, heads: int, own_width: bool) -> None:
    network = Blocks(own_width=own_width)
    mask = draw_mask(network, "kels", rate, TOKENS)
    rows = mask["attentions.0.qkv.bias"].view(3, 4, 6)
    assert rows[:, :heads].all()
    assert not rows[:, heads:].any()
    slim = extract_slim(network, mask)  # with the proof
    assert [attention.num_heads for attention in slim.attentions] == [heads, heads]
    assert slim.attentions[0].head_dim == 6
    assert slim.stem.out_features == 6 * heads
    assert slim.mlps[0][0].out_features == -(-20 * rate // 1)


class WatchfulBlocks(Blocks):
    """Its code looks at values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.nan_to_num() if x.isnan().any() else x)


def test_whole_heads_of_a_network_that_is_followed_with_data_are_dropped() -> None:
    network = WatchfulBlocks()
    slim = extract_slim(network, draw_mask(network, "kels", 0.5, TOKENS))
    assert slim.attentions[0].num_heads == 2


def test_heads_of_which_some_channels_are_fixed_are_dropped_whole() -> None:
    network = Blocks()
    network.attentions = nn.ModuleList([PartlyRotary(), PartlyRotary()])
    slim = extract_slim(network, draw_mask(network, "kels", 0.5, TOKENS))
    assert (slim.attentions[0].v.out_features, slim.attentions[0].head_dim, slim.stem.out_features) == (12, 6, 12)


def test_a_corrupted_head_is_noticed() -> None:
    network = Blocks()
    mask = draw_mask(network, "kels", 0.5, TOKENS)
    assert mask.structure is not None
    axis = next(axis for axis in mask.structure.axes if axis.size == 72)
    axis.kept[6:12] += 6  # the second of the kept heads' queries is the third head's
    with pytest.raises(SlimError):
        extract_slim(network, mask)


def test_code_that_names_the_number_of_heads_keeps_all(caplog: pytest.LogCaptureFixture) -> None:
    network = Blocks(fixed=True)
    with caplog.at_level(logging.INFO):
        mask = draw_mask(network, "kels", 0.5, TOKENS)
    assert "All channels of attentions.0, attentions.1 stay" in caplog.text
    assert mask["attentions.0.qkv.weight"].all()
    assert extract_slim(network, mask).mlps[0][0].out_features == 10


def test_a_share_of_the_operations_counts_whole_heads() -> None:
    network = Blocks()
    mask = draw_mask(network, "kels", ops=0.5, example_input=TOKENS)
    assert mask.structure is not None
    assert 0.2 < mask.structure.ops <= 0.5
    assert not mask["attentions.0.qkv.weight"].all()
