"""Of networks as tutorials and papers' code write them the slim network is the fit hypothesis, and something is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_ke as ke
from tests.flow.common_code import (
    Attention,
    Bags,
    Blur,
    ConvLSTM,
    Down,
    Experts,
    Functional,
    Generator,
    InPlace,
    KeywordAttention,
    LearnedQueries,
    Lengths,
    LinearAttention,
    MaskedTokens,
    Maxout,
    Messages,
    PackedLSTM,
    PerSample,
    Positions,
    Reversed,
    SpatialTransformer,
    Spectral,
    TemporalShift,
    Unpooled,
    Up,
    Variational,
    Watchful,
    WatchfulAttention,
)
from tests.flow.networks import proved_shares

SEQUENCE, IMAGE = torch.zeros(3, 7, 5), torch.zeros(2, 3, 8, 8)
MASK = torch.arange(21).view(3, 7) % 3 == 0


def _between(*layers: nn.Module, width: int = 20) -> Callable[[], nn.Module]:
    """Layers between two convolutions."""
    return lambda: nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), *layers, nn.Conv2d(width, 5, 1))


def _as_tensor(width: int) -> Tensor:
    return torch.tensor(width, dtype=torch.float32).sqrt()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...]]] = {
    "logits divided by a number": (Attention, (SEQUENCE,)),
    "logits divided by a tensor": (lambda: Attention(_as_tensor), (SEQUENCE,)),
    "logits of an attention followed with data": (WatchfulAttention, (SEQUENCE,)),
    "inputs of an attention by name": (KeywordAttention, (torch.zeros(3, 7, 16),)),
    "checks of what enters": (_between(Down(20), Up(20)), (IMAGE,)),
    "as many heads as channels of each": (lambda: Attention(width=64, heads=8), (SEQUENCE,)),
    "a head as wide as all heads of a batch": (lambda: Attention(width=48), (SEQUENCE,)),
    "linear attention": (LinearAttention, (SEQUENCE,)),
    "unpooling": (Unpooled, (IMAGE,)),
    "learned queries": (LearnedQueries, (SEQUENCE,)),
    "generator": (Generator, (torch.zeros(2, 10),)),
    "generator that knows its width": (lambda: Generator(12), (torch.zeros(2, 10),)),
    "variational autoencoder": (Variational, (SEQUENCE,)),
    "autoencoder": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(192, 12), nn.Linear(12, 10 * 16), nn.ReLU(), nn.Unflatten(1, (10, 4, 4)),
            nn.ConvTranspose2d(10, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1),
        ),
        (IMAGE,),
    ),
    "gated linear unit": (_between(nn.GLU(1), width=10), (IMAGE,)),
    "activations": (_between(nn.LogSigmoid(), nn.RReLU()), (IMAGE,)),
    "circular padding": (_between(nn.Conv2d(20, 20, 3, padding=1, padding_mode="circular")), (IMAGE,)),
    "channel shuffle": (_between(nn.ChannelShuffle(2)), (IMAGE,)),
    "convolutional lstm": (ConvLSTM, (torch.zeros(2, 3, 3, 6, 6),)),
    "packed lstm": (PackedLSTM, (torch.arange(10).view(2, 5), torch.tensor([5, 3]))),
    "lstm followed with data": (Watchful, (SEQUENCE,)),
    "bags of words": (Bags, (torch.arange(6), torch.tensor([0, 3]))),
    "mixture of experts": (Experts, (torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0)),)),
    "mixture of experts of which one sees nothing": (Experts, (SEQUENCE,)),
    "masked tokens": (MaskedTokens, (SEQUENCE, MASK)),
    "messages": (Messages, (torch.zeros(6, 5), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))),
    "temporal shift": (TemporalShift, (torch.zeros(2, 4, 3, 6, 6),)),
    "spatial transformer": (SpatialTransformer, (IMAGE,)),
    "fourier layer": (Spectral, (IMAGE,)),
    "blur": (Blur, (IMAGE,)),
    "reversed channels": (Reversed, (SEQUENCE,)),
    "views in place": (InPlace, (SEQUENCE,)),
    "per sample": (PerSample, (SEQUENCE,)),
    "maxout": (_between(Maxout(), nn.Conv2d(10, 30, 3), Maxout(3), nn.GroupNorm(1, 10), width=10), (IMAGE,)),
    "lengths of vectors": (Lengths, (SEQUENCE,)),
    "a layer's weight and groups": (lambda: Functional(4), (IMAGE,)),
    "of a convolution by depth": (lambda: Functional(20), (IMAGE,)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    assert proved_shares(build(), args)[1] < 0.57


def test_code_that_writes_out_how_many_channels_an_image_has_keeps_them(caplog: pytest.LogCaptureFixture) -> None:
    network = Generator(0)
    with caplog.at_level("INFO"):
        slim: Any = ke.extract_slim(network, ke.draw_mask(network, "kels", rate=0.5, example_input=torch.zeros(2, 10)))
    assert (slim.vector.out_features, slim.body[1].out_channels) == (192, 4)
    assert "the network's code needs as many as there are" in caplog.text


class Trained(nn.Module):
    """Numbers that say nothing of widths, but equal one."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = self.num_classes = self.epochs = self.groups = self.width = 16
        self.rounds = 8
        self.stem, self.body, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1).view(-1, self.width)
        x = self.body(x).unsqueeze(1)
        for _ in range(self.rounds):
            x = x.tanh()
        return self.head(x.squeeze(1))


def test_numbers_that_equal_a_width_stay() -> None:
    network = Trained()
    slim: Any = ke.extract_slim(network, ke.draw_mask(network, "kels", rate=0.5, example_input=IMAGE))
    assert (slim.width, slim.batch_size, slim.num_classes, slim.epochs, slim.groups, slim.rounds) == (8, *[16] * 4, 8)


def test_a_channel_that_is_asked_for_its_shape_alone_is_not_kept() -> None:
    network = Positions()
    slim: Any = ke.extract_slim(network, ke.draw_mask(network, "kels", 0.5, torch.arange(10).view(2, 5)))
    assert (slim.words.embedding_dim, slim.places.embedding_dim) == (8, 8)
