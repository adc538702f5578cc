"""Whether a slim network is as fast as its operations promise, beside one of the same width that was built by hand."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from unittest import mock

import onnxruntime
import torch
from torch import Tensor, nn
from torchvision.models import get_model

import lightning_ke as ke
from benchmarks.speed.memory import forward
from benchmarks.speed.timing import Row, samples

NETWORKS = ("resnet18", "resnet50")
BATCH = 8


class _HalfConv(nn.Conv2d):
    """A convolution of half the width that was asked for; the images keep their channels."""

    def __init__(self, in_channels: int, out_channels: int, *args: object, **kwargs: object) -> None:
        super().__init__(in_channels if in_channels == 3 else in_channels // 2, out_channels // 2, *args, **kwargs)


def build_half_width(name: str) -> nn.Module:
    """A ResNet of half the width, as someone would write it who knew the width from the start."""
    with mock.patch.object(nn, "Conv2d", _HalfConv):
        network: nn.Module = get_model(name, norm_layer=lambda channels: nn.BatchNorm2d(channels // 2))
    network.fc = nn.Linear(network.fc.in_features // 2, network.fc.out_features)
    return network


def onnx_session(network: nn.Module, x: Tensor) -> Callable[[], object]:
    """Run a network in ONNX Runtime, on one thread."""
    exported = io.BytesIO()
    torch.onnx.export(network, (x,), exported, dynamo=False, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x.numpy()})


def measure(rounds: int) -> list[Row]:
    """Run dense, slim and hand-built networks, taking turns."""
    rows = []
    x = torch.randn(BATCH, 3, 224, 224)
    for name in NETWORKS:
        dense = get_model(name).eval()
        slim = ke.extract_slim(dense, ke.draw_mask(dense, "kels", 0.5, x[:1])).eval()
        networks = {"dense": dense, "slim": slim, "half": build_half_width(name).eval()}
        ops = {kind: ke.measure_cost(network, x[:1]).ops for kind, network in networks.items()}
        assert ops["slim"] == ops["half"]
        for engine in ("eager", "ONNX Runtime"):
            if engine == "eager":
                actions = {kind: lambda network=network: forward(network, x) for kind, network in networks.items()}
            else:
                actions = {kind: onnx_session(network, x) for kind, network in networks.items()}
            times = samples(actions, rounds)
            saved = ops["dense"] / ops["slim"]
            # Of each round, because what else the machine does changes from round to round.
            gains = {
                kind: [dense / own for dense, own in zip(times["dense"], times[kind], strict=True)]
                for kind in ("slim", "half")
            }
            ours, theirs = (statistics.median(gains[kind]) / saved for kind in ("slim", "half"))
            rows.append(
                Row(
                    f"slim {name}, r = 0.5, batch of {BATCH}, {engine}: times as fast as the dense network "
                    f"(share of the {saved:.2f} x fewer operations; middle half of the rounds)",
                    _gain(gains["slim"], saved),
                    "the same width built by hand",
                    _gain(gains["half"], saved),
                    "as by hand within 10 %" + (", at least 75 %" if name == "resnet50" else ""),
                    ours >= 0.9 * theirs and (name != "resnet50" or ours >= 0.75),
                )
            )
    return rows


def _gain(gains: list[float], saved: float) -> str:
    low, middle, high = statistics.quantiles(gains, method="inclusive")
    return f"{middle:.2f} x ({middle / saved:.0%}; {low / saved:.0%}-{high / saved:.0%})"
