"""Narrower and wider networks of torchvision's families, and ResNets for small images."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from lightning_ke.extras import import_extra

Stem = Literal["imagenet", "small"]

#: Families that have a width to choose, as the error messages name them.
FAMILIES = "ResNets, DenseNets, VGGs, MobileNets, MNASNets and ShuffleNets"


def with_width(network: nn.Module, width: float, stem: Stem, num_classes: int) -> nn.Module | None:
    """Build a network of the same family again, with another number of channels everywhere.

    Args:
        network: One of torchvision's as published; a ResNet is rebuilt in place.
        width: Factor for its channels.
        stem: "small" lets a ResNet begin with a 3x3 convolution of stride 1 and no pooling.
        num_classes: Number of classes.

    Returns:
        The network; None if its family has no width to choose.
    """
    models = import_extra("torchvision.models", "app")
    if isinstance(network, models.ResNet):
        _rebuild_resnet(network, width, stem)
        resnet: nn.Module = network
        return resnet
    if isinstance(network, models.DenseNet):
        return _densenet(network, width, num_classes)
    if isinstance(network, models.VGG):
        return _vgg(network, width, num_classes)
    if isinstance(network, models.MNASNet):
        wider: nn.Module = models.MNASNet(network.alpha * width, num_classes=num_classes)
        return wider
    if isinstance(network, models.ShuffleNetV2):
        repeats = [len(stage) for stage in (network.stage2, network.stage3, network.stage4)]
        channels = [2 * _scaled(channels / 2, width) for channels in network._stage_out_channels]
        shuffled: nn.Module = models.ShuffleNetV2(repeats, channels, num_classes=num_classes)
        return shuffled
    return None


def _scaled(channels: float, width: float) -> int:
    if (scaled := round(channels * width)) < 1:
        raise ValueError(f"Expected `backbone.width` to leave at least one channel, but got {width}.")
    return scaled


def _densenet(network: Any, width: float, num_classes: int) -> nn.Module:
    features = network.features
    blocks = [module for name, module in features.named_children() if name.startswith("denseblock")]
    growth = features.denseblock1.denselayer1.conv2.out_channels
    first = features.conv0.out_channels
    narrow: nn.Module = type(network)(
        _scaled(growth, width), [len(block) for block in blocks], _scaled(first, width), num_classes=num_classes
    )
    return narrow


def _vgg(network: Any, width: float, num_classes: int) -> nn.Module:
    vgg = import_extra("torchvision.models.vgg", "app")
    layers: list[int | str] = []
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            layers.append(_scaled(module.out_channels, width))
        elif isinstance(module, nn.MaxPool2d):
            layers.append("M")
    batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in network.features)
    narrow: Any = type(network)(vgg.make_layers(layers, batch_norm=batch_norm), num_classes=num_classes)
    last = [channels for channels in layers if isinstance(channels, int)][-1]
    hidden = _scaled(narrow.classifier[0].out_features, width)
    area = narrow.classifier[0].in_features // 512
    for position, sizes in ((0, (last * area, hidden)), (3, (hidden, hidden)), (6, (hidden, num_classes))):
        linear = nn.Linear(*sizes)
        nn.init.normal_(linear.weight, 0, 0.01)  # as torchvision does
        nn.init.zeros_(linear.bias)
        narrow.classifier[position] = linear
    built: nn.Module = narrow
    return built


def _rebuild_resnet(network: Any, width: float, stem: Stem) -> None:
    """Build the layers of a torchvision ResNet again with `width` times the channels and the given stem.

    torchvision's own `width_per_group` widens the middle of a bottleneck only, and a basic block not at all.
    """
    first = network.layer1[0]
    layers = [network.layer1, network.layer2, network.layer3, network.layer4]
    planes = [_scaled(64 * 2**stage, width) for stage in range(4)]
    network.inplanes = planes[0]
    if stem == "small":
        network.conv1 = nn.Conv2d(3, planes[0], 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    else:
        network.conv1 = nn.Conv2d(3, planes[0], 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(planes[0])
    for number, (blocks, channels) in enumerate(zip(layers, planes, strict=True), start=1):
        stride = 1 if number == 1 else 2
        setattr(network, f"layer{number}", network._make_layer(type(first), channels, len(blocks), stride))
    network.fc = nn.Linear(planes[-1] * first.expansion, network.fc.out_features)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
