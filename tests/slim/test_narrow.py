"""A slim network's state_dict is that of a network which someone wrote narrow by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer

import lightning_ke as ke

CLASSES = 7


class Block(nn.Module):
    """A basic block, as anybody writes it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x) if hasattr(self, "downsample") else x
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + shortcut).relu()


class HandWrittenResNet18(nn.Module):
    """A ResNet18 that begins with any number of channels; it knows nothing of torchvision."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.layer2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(Block(4 * width, 8 * width, 2), Block(8 * width, 8 * width, 1))
        self.fc = nn.Linear(8 * width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class NarrowBottlenecks(ResNet):
    """torchvision's ResNet50, every width halved."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes=CLASSES)
        self.inplanes = 32
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32)
        for number, (planes, blocks) in enumerate(((32, 3), (64, 4), (128, 6), (256, 3)), start=1):
            layer = self._make_layer(Bottleneck, planes, blocks, stride=1 if number == 1 else 2)
            setattr(self, f"layer{number}", layer)
        self.fc = nn.Linear(1024, CLASSES)


def vgg(width: int) -> nn.Module:
    plan: list[Any] = [width, "M", 2 * width, "M", 4 * width, 4 * width, "M", 8 * width, "M"]
    network = VGG(make_layers(plan, batch_norm=True), num_classes=CLASSES, init_weights=False)
    network.classifier = nn.Sequential(
        nn.Linear(8 * width * 49, 4 * width), nn.ReLU(), nn.Dropout(), nn.Linear(4 * width, CLASSES)
    )
    return network


#: name: (the dense network, the narrow one, rate)
PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], float]] = {
    "resnet18, written by hand": (
        lambda: ResNet(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES),
        lambda: HandWrittenResNet18(32),
        0.5,
    ),
    "resnet18, a quarter": (
        lambda: ResNet(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES),
        lambda: HandWrittenResNet18(16),
        0.25,
    ),
    "resnet50": (lambda: ResNet(Bottleneck, [3, 4, 6, 3], num_classes=CLASSES), NarrowBottlenecks, 0.5),
    "vgg": (lambda: vgg(16), lambda: vgg(8), 0.5),
    "mobilenet_v2": (
        lambda: MobileNetV2(CLASSES, width_mult=2.0),
        lambda: MobileNetV2(CLASSES, width_mult=1.0),
        0.5,
    ),
    "densenet": (
        lambda: DenseNet(16, (2, 3, 2), 32, num_classes=CLASSES),
        lambda: DenseNet(8, (2, 3, 2), 16, num_classes=CLASSES),
        0.5,
    ),
    "vision transformer": (
        # Heads keep their number and half of their width.
        lambda: VisionTransformer(64, 16, 2, 4, 48, 96, num_classes=CLASSES),
        lambda: VisionTransformer(64, 16, 2, 4, 24, 48, num_classes=CLASSES),
        0.5,
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_narrow_network_takes_it_strictly_and_computes_the_same(name: str, tmp_path: Path) -> None:
    build, build_narrow, rate = PAIRS[name]
    torch.manual_seed(0)
    dense = build()
    images = torch.randn(2, 3, 64, 64)
    mask = ke.draw_mask(dense, rate=rate, example_input=images)
    slim = ke.extract_slim(dense, mask, verify=False)
    with torch.no_grad():
        slim.train()(images)  # moves the statistics
        for parameter in slim.parameters():
            if parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        narrow = build_narrow()
        narrow.load_state_dict(slim.state_dict())
        expected = slim.eval()(images)
        assert expected.std() > 0.01
        assert torch.allclose(narrow.eval()(images), expected, rtol=1e-4, atol=1e-5)
    # So does the file, whoever reads it.
    ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
    other = build_narrow().eval()
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "slim.safetensors"))
    with torch.no_grad():
        assert torch.allclose(other(images), expected, rtol=1e-4, atol=1e-5)
