"""Networks and masks for the tests of the redraw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.splits import draw_mask
from lightning_ke.structure import Axis, Cut, Structure


def small_cnn() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 6), nn.Linear(6, 4)
    )
    with torch.no_grad():
        for value in (*net.parameters(), *net.buffers()):
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    return net


def all_reset(model: nn.Module) -> Mask:
    return Mask.from_tensors({n: torch.zeros(p.shape, dtype=torch.bool) for n, p in model.named_parameters()})


def first_half(model: nn.Module) -> Mask:
    """A KELS-like mask by hand: half of the channels of every dimension of more than three."""
    axes: dict[int, Axis] = {}
    cuts = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        for size in value.shape:
            axes.setdefault(size, Axis(size, torch.arange((size + 1) // 2, dtype=torch.int32)))
        positions = {size: position for position, size in enumerate(axes)}
        cuts[name] = Cut(tuple(value.shape), tuple(positions[size] if size > 3 else -1 for size in value.shape))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return Mask.from_structure(Structure(tuple(axes.values()), cuts), shapes)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}


def wels(model: nn.Module) -> Mask:
    return draw_mask(model, "wels", 0.3)


def late_layers(model: nn.Module) -> Mask:
    return draw_mask(model, "layers")
