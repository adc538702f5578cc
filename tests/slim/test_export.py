"""Slim networks leave for other engines: `torch.export` and ONNX Runtime compute what the slim network computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import lightning_ke as ke
from tests.flow.attention import Encoder

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed: the extra `export` has them",
)


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(64, 16, 2, 4, 48, 96, num_classes=7)


def timm_vit() -> nn.Module:
    timm = pytest.importorskip("timm", reason="timm, of the extra `timm`, is not installed")
    return timm.models.VisionTransformer(64, 16, 3, 7, embed_dim=48, depth=2, num_heads=3)


def small_resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=7)


def small_mobilenet() -> nn.Module:
    settings = [[1, 8, 1, 1], [4, 16, 2, 2]]
    return torchvision.models.MobileNetV2(num_classes=7, inverted_residual_setting=settings)


def torchvisions(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, num_classes=7)


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SEQUENCE = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "resnet18": (torchvisions("resnet18"), IMAGES),
    "mobilenet_v2": (torchvisions("mobilenet_v2"), IMAGES),
    "shufflenet": (torchvisions("shufflenet_v2_x0_5"), IMAGES),
    "small mobilenet": (small_mobilenet, IMAGES),
    "small resnet": (small_resnet, IMAGES),
    "vit": (vit, IMAGES),
    "timm vit": (timm_vit, IMAGES),
    "transformer encoder": (Encoder, SEQUENCE),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 3, 2), 16, num_classes=7), IMAGES),
}
# Exporting a deep network takes half a minute on a busy machine.
CASES = [
    pytest.param(name, marks=pytest.mark.slow if name in ("resnet18", "mobilenet_v2", "shufflenet") else ())
    for name in NETWORKS
]


def slim_of(name: str) -> tuple[nn.Module, Tensor]:
    """A slim network whose statistics and weights are not those of a fresh one, in eval mode, and its input."""
    build, example = NETWORKS[name]
    torch.manual_seed(0)
    dense = build()
    mask = ke.draw_mask(dense, rate=0.5, example_input=example)
    slim = ke.extract_slim(dense, mask, verify=False)
    with torch.no_grad():
        slim.train()(torch.randn_like(example))  # moves the statistics
        for parameter in slim.parameters():
            if parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return slim.eval(), example


@pytest.mark.parametrize("name", CASES)
def test_torch_export(name: str) -> None:
    slim, example = slim_of(name)
    exported = torch.export.export(slim, (example,))
    assert torch.allclose(exported.module()(example), slim(example), rtol=1e-4, atol=1e-5)


@needs_onnx
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime(name: str, tmp_path: Path) -> None:
    import onnxruntime

    slim, example = slim_of(name)
    path = tmp_path / "slim.onnx"
    torch.onnx.export(slim, (example,), path, input_names=["x"], dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    other = torch.randn_like(example)
    (scores,) = session.run(None, {"x": other.numpy()})
    with torch.no_grad():
        expected = slim(other).numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)
