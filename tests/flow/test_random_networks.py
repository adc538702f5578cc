"""Random networks of every kind of layer: the slim network is the fit hypothesis at any rate."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_ke.flow import decide_structure
from lightning_ke.masks import Mask
from lightning_ke.slim import extract_slim
from lightning_ke.splits.base import Call

WIDTHS = st.sampled_from([4, 6, 8, 12])


class Block(nn.Module):
    """One step that takes (batch, channels, 4, 4) and returns the same with `width` channels."""

    def __init__(self, kind: str, entering: int, width: int) -> None:
        super().__init__()
        self.kind, self.width, self.heads = kind, width, 2
        self.one = nn.Conv2d(entering, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 1)
        if kind in ("slices", "norm", "attention", "gate", "flatten"):
            del self.two
        if kind == "concatenate":
            self.two = nn.Conv2d(entering, width, 1)
            self.join = nn.Conv2d(2 * width, width, 1)
        elif kind in ("chunk", "maxout"):
            self.two = nn.Conv2d(width, 2 * width, 1)
        elif kind == "slices":
            self.first, self.rest = width // 4, width - width // 4
            self.left, self.right = nn.Conv2d(self.first, width, 1), nn.Conv2d(self.rest, width, 1)
        elif kind == "group":
            self.two = nn.Conv2d(width, 2 * width, 1, groups=2)
            self.join = nn.Conv2d(2 * width, width, 1)
        elif kind == "depthwise":
            self.two = nn.Conv2d(width, width, 3, padding=1, groups=width)
        elif kind == "norm":
            self.batch, self.group = nn.BatchNorm2d(width), nn.GroupNorm(2, width)
            self.layer, self.gamma = nn.LayerNorm(width), nn.Parameter(torch.ones(width, 1, 1))
        elif kind == "attention":
            self.qkv = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)
        elif kind == "gate":
            self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        elif kind == "flatten":
            self.dense, self.back = nn.Linear(width * 4, 16), nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, f"_{self.kind}")(x)

    def _add(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x + self.two(x.relu())

    def _concatenate(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.one(x), self.two(x)], 1).relu())

    def _chunk(self, x: Tensor) -> Tensor:
        value, gate = self.two(self.one(x)).chunk(2, 1)
        return value * gate.sigmoid()

    def _maxout(self, x: Tensor) -> Tensor:
        return self.two(self.one(x)).unflatten(1, (-1, 2)).amax(2)

    def _slices(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return self.left(x[:, : self.first]) + self.right(x[:, self.first :])

    def _shuffle(self, x: Tensor) -> Tensor:
        x = self.one(x)
        mixed = x.view(len(x), 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
        return self.two(mixed) + mixed

    def _group(self, x: Tensor) -> Tensor:
        return self.join(self.two(self.one(x)).relu())

    def _depthwise(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu())

    def _pool(self, x: Tensor) -> Tensor:
        small = nn.functional.max_pool2d(self.one(x), 2)
        return nn.functional.interpolate(self.two(nn.functional.avg_pool2d(small, 2)), scale_factor=4)

    def _norm(self, x: Tensor) -> Tensor:
        x = self.group(self.batch(self.one(x)))
        return self.gamma * self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) + x

    def _attention(self, x: Tensor) -> Tensor:
        x = self.one(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return (x + self.out(y)).transpose(1, 2).unflatten(2, (4, 4))

    def _gate(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()

    def _flatten(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.back(self.dense(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)).relu())
        return x + y[:, :, None, None]


KINDS = [name.removeprefix("_") for name, value in vars(Block).items() if name.startswith("_") and name[1:].isalpha()]
drawn: Counter[str] = Counter()


@st.composite
def networks(draw: Callable[..., object], kind: str) -> nn.Module:
    """A block of the given kind among up to three others."""
    # Hypothesis likes simple choices; a seed gives every kind of block its fair share.
    choices = random.Random(f"{kind} {draw(st.integers(0, 2**32))}")
    others = choices.sample([other for other in KINDS if other != kind], draw(st.integers(0, 3)))
    kinds = choices.sample([kind, *others], 1 + len(others))
    widths = draw(st.lists(WIDTHS, min_size=len(kinds), max_size=len(kinds)))
    entering = [3, *widths]
    blocks = [Block(kind, before, width) for kind, before, width in zip(kinds, entering, widths, strict=False)]
    drawn.update(kinds)
    return nn.Sequential(*blocks, nn.Conv2d(widths[-1], 2, 1))


def test_slim_is_fit_for_every_kind_of_block() -> None:
    drawn.clear()
    for kind in KINDS:
        slim_is_fit(kind)
    assert set(drawn) == set(KINDS)
    assert min(drawn.values()) >= 0.25 * sum(drawn.values()) / len(KINDS), drawn


def slim_is_fit(kind: str) -> None:
    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(networks(kind), st.floats(0.05, 0.95))
    def check(network: nn.Module, rate: float) -> None:
        structure = decide_structure(network, [Call("", (torch.zeros(2, 3, 4, 4),))], rate)
        mask = Mask.from_structure(structure, {name: tuple(p.shape) for name, p in network.named_parameters()})
        slim = extract_slim(network, mask)
        assert sum(p.numel() for p in slim.parameters()) == sum(int(mask[name].sum()) for name in mask)

    check()
