"""The split that redraws late layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from lightning_ke.splits import BottomUp, Layers, draw_mask


def redrawn(mask) -> list[str]:
    return [name for name, member in mask.items() if not member.any()]


def resnet18() -> nn.Module:
    with torch.device("meta"):
        return models.resnet18(num_classes=10)


def test_resnet18_is_redrawn_from_layer4_up_by_default() -> None:
    mask = draw_mask(resnet18(), "layers")
    assert redrawn(mask) == [
        "layer4.0.conv1.weight",
        "layer4.0.conv2.weight",
        "layer4.0.downsample.0.weight",
        "layer4.1.conv1.weight",
        "layer4.1.conv2.weight",
        "fc.weight",
        "fc.bias",
    ]
    assert mask.structure is None
    assert mask == draw_mask(resnet18(), Layers(start="layer4"))


def test_norms_of_redrawn_blocks_are_fit() -> None:
    mask = draw_mask(resnet18(), Layers("layer3"))
    assert all(mask[name].all() for name in mask if "bn" in name or "downsample.1" in name)
    assert sum(name.startswith("layer3") for name in redrawn(mask)) == 5
    assert not any(name.startswith(("conv1", "layer1", "layer2")) for name in redrawn(mask))


@pytest.mark.parametrize(
    ("build", "first"),
    [
        (models.resnet34, "layer4.0.conv1.weight"),
        (models.resnet50, "layer4.0.conv1.weight"),
        (models.densenet121, "features.denseblock4.denselayer1.conv1.weight"),
        (models.vgg11_bn, "classifier.0.weight"),
        (models.vit_b_16, "encoder.layers.encoder_layer_6.self_attention.in_proj_weight"),
    ],
)
def test_the_default_start_is_the_first_block_in_the_second_half(build, first) -> None:
    with torch.device("meta"):
        net = build()
    assert redrawn(draw_mask(net, "layers"))[0] == first


def test_a_plain_chain_is_redrawn_from_its_second_half_up() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert redrawn(draw_mask(net, "layers")) == ["4.weight", "4.bias"]
    assert redrawn(draw_mask(nn.Linear(3, 3), "layers")) == ["weight", "bias"]


def test_the_network_may_be_part_of_another_module() -> None:
    inside = nn.ModuleDict({"model": resnet18(), "loss": nn.CrossEntropyLoss()})
    by_default = draw_mask(inside, "layers")
    assert redrawn(by_default)[0] == "model.layer4.0.conv1.weight"
    assert by_default == draw_mask(inside, Layers("layer4")) == draw_mask(inside, Layers("model.layer4"))


def test_a_target_limits_what_is_redrawn() -> None:
    pair = nn.ModuleDict({"first": resnet18(), "second": resnet18()})
    names = redrawn(draw_mask(pair, "layers", target="first"))
    assert names[0] == "first.layer4.0.conv1.weight"
    assert all(name.startswith("first.") for name in names)


def test_a_start_that_names_nothing_is_answered_with_the_candidates() -> None:
    with pytest.raises(ValueError, match=r"but got 'layer5'.*'layer4'.*outermost blocks are 'conv1', 'layer1'"):
        draw_mask(resnet18(), Layers("layer5"))
    # A block without layers is none to start from.
    with pytest.raises(ValueError, match="but got 'maxpool'"):
        draw_mask(resnet18(), Layers("maxpool"))


def test_a_start_that_fits_several_blocks_is_refused() -> None:
    pair = nn.ModuleDict({"first": resnet18(), "second": resnet18()})
    with pytest.raises(ValueError, match=r"'layer4' fits 'first\.layer4', 'second\.layer4'"):
        draw_mask(pair, Layers("layer4"))


def test_an_empty_network_has_nothing_to_redraw() -> None:
    with pytest.raises(ValueError, match="would be fit"):
        draw_mask(nn.Identity(), "layers")


@pytest.mark.parametrize("bias", [True, False])
def test_a_last_layer_that_is_tied_to_an_earlier_one_is_refused(bias: bool) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.middle, self.head = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=bias)
            self.head.weight = self.table.weight

    with pytest.raises(ValueError, match="`head` shares one with an earlier layer"):
        draw_mask(Tied(), "last-layer")
    mask = draw_mask(Tied(), "last-layer", target="middle")
    assert [name for name in mask if not mask[name].any()] == ["middle.weight", "middle.bias"]


@pytest.mark.parametrize("starts", [("2", "1"), ("1", "1"), ("3", "1", "2")])
def test_blocks_that_are_not_named_from_below_up_are_refused(starts: tuple[str, ...]) -> None:
    """What survives all redraws would not be what is below the first of them."""
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    with pytest.raises(ValueError, match=f"'{starts[1]}' does not begin above '{starts[0]}'"):
        draw_mask(net, BottomUp(starts))
    assert redrawn(draw_mask(net, BottomUp(("1", "3")))) == [f"{n}.{p}" for n in (1, 2, 3) for p in ("weight", "bias")]


def test_attention_may_be_the_last_layer() -> None:
    mask = draw_mask(nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.LayerNorm(4)), "last-layer")
    assert not mask["1.in_proj_weight"].any()
    assert not mask["1.out_proj.weight"].any()
    assert mask["0.weight"].all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Layers(3), "`start` to be a name, but got 3"),  # type: ignore[arg-type]
        (lambda: BottomUp(5), "`starts` to name one block or more, from below, but got 5"),  # type: ignore[arg-type]
        (lambda: BottomUp((1, 2)), "`starts` to name one block or more"),  # type: ignore[arg-type]
        (lambda: BottomUp("fc"), "`starts` to name one block or more"),  # type: ignore[arg-type]
        (lambda: BottomUp(()), "`starts` to name one block or more"),
    ],
    ids=["number", "no list", "numbers", "string", "empty"],
)
def test_blocks_are_named_when_the_split_is_built(build: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        build()
