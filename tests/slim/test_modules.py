"""A slim network is an ordinary module: its layers say their true sizes; it trains, copies, pickles and compiles."""

from __future__ import annotations

import copy
import io
import os
import pickle
import sys
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import lightning_ke as ke
from lightning_ke import naming
from tests.flow.attention import Encoder, Translator
from tests.flow.networks import NETWORKS, Recurrent

IMAGE = torch.zeros(1, 3, 16, 16)
PARAMETRISED = ("weight norm", "weight norm as a hook", "spectral norm")  # refused by `draw_mask`


def slim_of(dense: nn.Module, *args: Tensor, rate: float = 0.5) -> Any:
    return ke.extract_slim(dense, ke.draw_mask(dense, rate=rate, example_input=args))


class Layers(nn.Module):
    """One of each kind of layer that says its sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.batch_norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.group_norm = nn.GroupNorm(8, 32)
        self.grouped = nn.Conv2d(32, 16, 1, groups=4)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.instance_norm = nn.InstanceNorm2d(12, affine=True, track_running_stats=True)
        self.grouped_up = nn.ConvTranspose2d(12, 24, 2, stride=2, groups=12)
        self.prelu = nn.PReLU(24)
        self.linear = nn.Linear(24, 10)
        self.layer_norm = nn.LayerNorm(10)
        self.rms_norm = nn.RMSNorm(10)
        self.bilinear = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.group_norm(self.depthwise(self.batch_norm(self.conv(x)))).relu())
        x = self.prelu(self.grouped_up(self.instance_norm(self.up(x))))
        return self.bilinear(self.rms_norm(self.layer_norm(self.linear(x.mean((2, 3))))))


def test_every_layer_tells_its_sizes() -> None:
    slim = slim_of(Layers(), IMAGE)
    told = {
        name: {key: value for key, value in vars(module).items() if type(value) in (int, tuple) and value}
        for name, module in naming.named_modules(slim)
    }
    sizes = {
        "conv": {"in_channels": 3, "out_channels": 8, "groups": 1},
        "batch_norm": {"num_features": 8},
        "depthwise": {"in_channels": 8, "out_channels": 16, "groups": 8},
        "group_norm": {"num_channels": 16, "num_groups": 4},
        "grouped": {"in_channels": 16, "out_channels": 8, "groups": 2},
        "up": {"in_channels": 8, "out_channels": 6, "groups": 1},
        "instance_norm": {"num_features": 6},
        "grouped_up": {"in_channels": 6, "out_channels": 12, "groups": 6},
        "prelu": {"num_parameters": 12},
        "linear": {"in_features": 12, "out_features": 5},
        "layer_norm": {"normalized_shape": (5,)},
        "rms_norm": {"normalized_shape": (5,)},
        "bilinear": {"in_features": 5, "out_features": 5},
    }
    assert {name: {key: told[name][key] for key in keys} for name, keys in sizes.items()} == sizes


@pytest.mark.parametrize(
    ("layer", "out", "options", "sizes"),
    [
        (nn.LSTM, 10, {}, {"input_size": 6, "hidden_size": 5}),
        (nn.LSTM, 6, {"proj_size": 6}, {"input_size": 6, "hidden_size": 5, "proj_size": 3}),
        (nn.GRU, 20, {"bidirectional": True, "num_layers": 2}, {"input_size": 6, "hidden_size": 5}),
        (nn.RNN, 10, {}, {"input_size": 6, "hidden_size": 5}),
    ],
)
def test_recurrent_layers_and_embeddings_tell_their_sizes(
    layer: Any, out: int, options: dict[str, Any], sizes: dict[str, int]
) -> None:
    slim = slim_of(Recurrent(layer, out, **options), torch.zeros(2, 5, dtype=torch.long))
    assert {name: getattr(slim.layer, name) for name in sizes} == sizes
    # Every token keeps its row.
    assert (slim.embedding.num_embeddings, slim.embedding.embedding_dim) == (20, 6)


def test_attention_and_transformers_tell_their_sizes() -> None:
    slim = slim_of(Encoder(), torch.zeros(2, 7, 5))
    for layer in slim.encoder.layers:
        assert (layer.self_attn.embed_dim, layer.self_attn.num_heads, layer.self_attn.head_dim) == (8, 4, 2)
        assert (layer.self_attn.kdim, layer.self_attn.vdim, layer.self_attn.out_proj.out_features) == (8, 8, 8)
        assert (layer.linear1.out_features, layer.norm1.normalized_shape) == (12, (8,))
    tokens = torch.zeros(2, 5, dtype=torch.long)
    assert slim_of(Translator(), tokens, tokens).transformer.d_model == 8


def test_an_extent_of_the_input_is_no_width_though_they_are_equal() -> None:
    dense = torchvision.models.VisionTransformer(48, 16, 2, 4, 48, 96, num_classes=7)
    slim = slim_of(dense, torch.zeros(1, 3, 48, 48))
    assert (slim.image_size, slim.patch_size, slim.hidden_dim) == (48, 16, 24)


@pytest.mark.parametrize("kind", ["GCNConv", "SAGEConv", "GATConv"])
def test_graph_convolutions_tell_their_sizes(kind: str) -> None:
    geometric = pytest.importorskip("torch_geometric.nn", reason="torch-geometric, of `graphs`, is not installed")

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            heads = {"heads": 2} if kind == "GATConv" else {}
            self.one = getattr(geometric, kind)(6, 8, **heads)
            self.two = getattr(geometric, kind)(16 if heads else 8, 3)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.two(self.one(x, edges).relu(), edges)

    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    slim = slim_of(Graph(), torch.randn(4, 6), edges)
    assert (slim.one.in_channels, slim.two.out_channels) == (6, 3)
    width = slim.one.out_channels * (slim.one.heads if kind == "GATConv" else 1)
    assert width == slim.two.in_channels == (8 if kind == "GATConv" else 4)
    assert str(slim.one) == f"{kind}(6, {slim.one.out_channels}" + (
        f", heads={slim.one.heads})" if kind == "GATConv" else ", aggr=mean)" if kind == "SAGEConv" else ")"
    )
    again = pickle.loads(pickle.dumps(slim.two))
    x = torch.randn(4, width)
    assert torch.equal(again(x, edges), slim.two(x, edges))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in PARAMETRISED])
def test_every_kind_trains_copies_and_pickles(name: str) -> None:
    build, args = NETWORKS[name]
    dense = build()
    slim = ke.extract_slim(dense, ke.draw_mask(dense, rate=0.5, example_input=args), verify=False)
    # Freshly zero images say nothing, and leave batch norms without a gradient.
    args = tuple(
        torch.randn_like(arg.repeat(2, *[1] * (arg.dim() - 1))) if arg.is_floating_point() else arg for arg in args
    )
    storage = io.BytesIO()
    torch.save(slim, storage)
    storage.seek(0)
    copies = [copy.deepcopy(slim), pickle.loads(pickle.dumps(slim)), torch.load(storage, weights_only=False)]
    slim.eval()
    with torch.no_grad():
        expected = slim(*args)
        assert all(torch.allclose(other.eval()(*args), expected, atol=1e-6) for other in copies)
    trained = copies[0].train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in trained.parameters()]
    output = trained(*args)
    (output * torch.randn_like(output)).sum().backward()
    optimizer.step()
    moved = [not torch.equal(parameter, old) for parameter, old in zip(trained.parameters(), before, strict=True)]
    assert sum(moved) > 0.7 * len(moved)  # a class token's neighbours and biases before norms have no gradient
    assert all(torch.equal(parameter, old) for parameter, old in zip(slim.parameters(), before, strict=True))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["resnet", pytest.param("mobilenet", marks=pytest.mark.slow), "encoder"])
def test_it_compiles(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The compiler leaves its own paths and settings behind.
    monkeypatch.setattr(sys, "path", [*sys.path])
    environment = dict(os.environ)
    dense, example = {
        "resnet": lambda: (
            torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5),
            torch.randn(2, 3, 32, 32),
        ),
        "mobilenet": lambda: (torchvision.models.mobilenet_v3_small(num_classes=5), torch.randn(2, 3, 32, 32)),
        "encoder": lambda: (Encoder(), torch.randn(2, 7, 5)),
    }[name]()
    slim = slim_of(dense, example).eval()
    torch._dynamo.reset()
    compiled = torch.compile(slim, backend=backend, fullgraph=True)
    try:
        assert torch.allclose(compiled(example), slim(example), rtol=1e-3, atol=1e-5)
        compiled(example).square().sum().backward()
        assert any(bool(parameter.grad.any()) for parameter in slim.parameters() if parameter.grad is not None)
    finally:
        torch._dynamo.reset()
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
