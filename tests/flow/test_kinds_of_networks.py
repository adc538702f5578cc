"""Every kind of operation: the slim network is the fit hypothesis, and something is really cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.flow import decide_structure
from lightning_ke.slim import extract_slim
from lightning_ke.splits.base import Call
from tests.flow.attention import Encoder, HandWrittenAttention, SelfAttention
from tests.flow.networks import NETWORKS, SEQUENCE, TOKENS, Aggregation, Recurrent, draw, proved_shares
from tests.test_slim import missed_corruptions

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


@pytest.mark.parametrize("name", NETWORKS)
def test_slim_is_fit(name: str) -> None:
    build, args = NETWORKS[name]
    assert proved_shares(build(), args)[1] < 0.55


@pytest.mark.parametrize("name", NETWORKS)
def test_corruption_is_caught(name: str) -> None:
    build, args = NETWORKS[name]
    network = build()
    missed = missed_corruptions(network, draw(network, 0.5, *args))
    # A bias before a norm, the bias of keys and what a class token never meets have no influence on any output.
    assert len(missed) <= 0.25 * len(list(network.parameters())), missed


def test_recurrent_layers_tell_their_sizes() -> None:
    network = Recurrent(nn.LSTM, 6, proj_size=6)
    layer = extract_slim(network, draw(network, 0.5, TOKENS)).layer
    assert (layer.input_size, layer.hidden_size, layer.proj_size) == (6, 5, 3)
    # Each of the four gates keeps the same units.
    assert layer.weight_hh_l0.shape == (20, 3)


def test_attention_tells_its_sizes_and_keeps_its_heads() -> None:
    network = SelfAttention(True)
    attention = extract_slim(network, draw(network, 0.5, SEQUENCE)).attention
    assert (attention.embed_dim, attention.num_heads, attention.head_dim) == (8, 4, 2)
    assert attention.in_proj_weight.shape == (24, 8)


def test_remembered_numbers_follow() -> None:
    network = HandWrittenAttention()
    slim = extract_slim(network, draw(network, 0.5, torch.zeros(1, 3, 8, 8)))
    assert (slim.num_heads, slim.head_dim) == (4, 2)
    assert slim.norm.normalized_shape == (8,)
    assert slim.scale == network.scale


def test_a_lost_scale_is_folded_into_the_queries() -> None:
    network = SelfAttention(True)
    mask = draw(network, 0.5, SEQUENCE)
    slim = extract_slim(network, mask)
    dense = network.attention.in_proj_weight[mask["attention.in_proj_weight"]].view(24, 8)
    torch.testing.assert_close(slim.attention.in_proj_weight[:8], dense[:8] * 0.5**0.5)
    assert torch.equal(slim.attention.in_proj_weight[8:], dense[8:])


def test_a_wide_kernel_over_streams_keeps_what_it_would_mix() -> None:
    network = Aggregation(3)
    extract_slim(network, draw(network, 0.5, torch.zeros(2, 7, 5)))
    assert draw(network, 0.5, torch.zeros(2, 7, 5)).fit_share == 1.0


def test_whole_groups_are_kept() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.Conv2d(12, 18, 1, groups=6), nn.GroupNorm(6, 18), nn.Conv2d(18, 2, 1)
    )
    slim = extract_slim(network, draw(network, 0.5, torch.zeros(1, 3, 4, 4)))
    assert (slim[1].groups, slim[1].in_channels, slim[1].out_channels) == (3, 6, 9)
    assert (slim[2].num_groups, slim[2].num_channels) == (3, 9)


def test_groups_that_a_shuffle_ties_keep_the_same_share() -> None:
    shuffled = nn.Sequential(
        nn.Conv2d(3, 16, 1),
        nn.Conv2d(16, 16, 1, groups=2),
        nn.ChannelShuffle(2),
        nn.Conv2d(16, 16, 1, groups=2),
        nn.Conv2d(16, 2, 1),
    )
    slim = extract_slim(shuffled, draw(shuffled, 0.5, torch.zeros(1, 3, 4, 4)))
    assert (slim[1].groups, slim[3].groups) == (2, 2)
    assert slim[3].weight.shape[0] == 8


def test_kept_channels_are_rounded_up() -> None:
    network = nn.Sequential(nn.Conv2d(3, 20, 1), nn.Conv2d(20, 21, 1), nn.Conv2d(21, 2, 1))
    structure = decide_structure(network, [Call("", (torch.zeros(1, 3, 4, 4),))], 0.3, round_to=8)
    assert [structure.count(f"{index}.bias") for index in (0, 1)] == [8, 8]
    assert "2.bias" not in structure.cuts


def test_a_transformer_encoder_is_cut_throughout() -> None:
    network = Encoder()
    slim = extract_slim(network, draw(network, 0.5, SEQUENCE))
    assert slim.encoder.layers[0].linear1.weight.shape == (12, 8)
    assert slim.stem.out_features == 8


def test_equal_parts_stay_equal_where_one_of_them_meets_the_input() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.one, self.other = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.both(x).chunk(2, 1)
            return self.one(first) + self.other(second + x)  # the input's channels, and so the second's, are all kept

    network = nn.Sequential(Halves(), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1))
    mask = draw(network, 0.5, torch.zeros(1, 3, 4, 4))
    assert bool(mask["0.both.weight"].all())
    extract_slim(network, mask)
