"""What `draw_mask` accepts and refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from lightning_ke.masks import Mask
from lightning_ke.splits import (
    Dormant,
    Kels,
    Layers,
    Overlap,
    Snip,
    Split,
    SplitContext,
    Wels,
    draw_mask,
    get_split,
    list_splits,
    split_info,
)


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def test_the_registry_lists_every_split_with_a_description() -> None:
    for name in list_splits():
        assert split_info(name).name == name
        assert split_info(name).description
    assert [name for name in list_splits() if split_info(name).structured] == ["importance", "kels"]
    without_rate = ["bottom-up", "dormant", "everything", "last-layer", "layers"]
    assert [name for name in list_splits() if not split_info(name).takes_rate] == without_rate


def test_an_unknown_split_is_refused_by_naming_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"one of .*'kels', .* but got 'kel'\. Did you mean 'kels'\?"):
        draw_mask(two_layers(), split="kel")
    with pytest.raises(ValueError, match=r"but got 'halves'\.$"):  # like none of them
        draw_mask(two_layers(), split="halves")
    with pytest.raises(ValueError, match=r"Expected argument `split` to be one of .* but got 3"):
        get_split(3)


@pytest.mark.parametrize("rate", [0, 1, 1.5, -0.5, math.nan, math.inf, "0.5", True, False, [0.5], np.float64(2)])
@pytest.mark.parametrize("split", [name for name in list_splits() if split_info(name).takes_rate])
def test_a_rate_outside_of_0_to_1_is_refused(split: str, rate: object) -> None:
    with pytest.raises(ValueError, match=r"Expected argument `rate` to be in \(0, 1\), but got "):
        draw_mask(two_layers(), split=split, rate=rate, example_input=torch.zeros(1, 6))


@pytest.mark.parametrize("build", [Kels, Wels])
def test_a_split_object_checks_its_rate_too(build: type[Kels | Wels]) -> None:
    with pytest.raises(ValueError, match=r"Expected argument `rate` to be in \(0, 1\), but got 1\.5\."):
        build(1.5)


def test_numpy_seeds_are_those_of_python() -> None:
    network = nn.Linear(8, 8)
    drawn = [draw_mask(network, split="wels", seed=seed)["weight"] for seed in (3, np.int64(3), np.uint8(3))]  # type: ignore[arg-type]
    assert all(torch.equal(drawn[0], again) for again in drawn)


def test_numpy_rates_are_fine() -> None:
    assert get_split("wels", np.float32(0.25)) == Wels(0.25)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("build", [Kels, Wels, Snip, Overlap, Dormant])
def test_what_a_checkpoint_holds_of_a_split_with_a_numpy_number_are_python_s_types(build: Any, kind: Any) -> None:
    assert build(kind(0.25)).identity() == build(0.25).identity()
    assert not [value for value in build(kind(0.25)).identity().values() if isinstance(value, np.generic)]


def test_channels_are_followed_whatever_the_default_device_is() -> None:
    class Halves(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            one, other = self[0](x).chunk(2, 1)
            return self[1](one * other) + torch.arange(3)

    net, x = Halves(nn.Linear(9, 40), nn.Linear(20, 3)), torch.randn(5, 9)
    expected = draw_mask(net, "kels", 0.5, example_input=x)
    with torch.device("meta"):  # stands for a GPU
        assert draw_mask(net, "kels", 0.5, example_input=x) == expected


@pytest.mark.parametrize("split", ["wels", "random-each-generation", "dormant", "layers", "magnitude"])
def test_masks_do_not_depend_on_the_default_device_and_dtype(split: str) -> None:
    net, x = nn.Sequential(nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 3)), torch.randn(5, 9)
    expected = draw_mask(net, split, example_input=x)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):  # stands for a GPU
            assert draw_mask(net, split, example_input=x) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_default_rate_is_the_split_s_own() -> None:
    assert get_split("kels") == Kels(0.5)
    assert get_split("wels") == Wels(0.5)
    assert get_split("snip") == Snip(0.8)


def test_a_rate_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match=r"`rate` to be None for split 'layers', which takes none, but got 0\.5"):
        draw_mask(two_layers(), split="layers", rate=0.5)
    with pytest.raises(ValueError, match=r"`rate` to be None next to the split object Wels\(rate=0\.3\)"):
        draw_mask(two_layers(), split=Wels(0.3), rate=0.5)


def test_a_split_that_follows_channels_asks_for_an_example_input() -> None:
    with pytest.raises(ValueError, match="Expected argument `example_input` to be given for split 'kels'"):
        draw_mask(two_layers())


def test_a_lightning_module_may_hold_the_example_input() -> None:
    class Module(LightningModule):
        def __init__(self, example: Tensor | None) -> None:
            super().__init__()
            self.layers = two_layers()
            self.example_input_array = example

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    example = torch.zeros(1, 6)
    assert draw_mask(Module(example)) == draw_mask(Module(None), example_input=example)
    with pytest.raises(ValueError, match="Expected argument `example_input` to be given"):
        draw_mask(Module(None))


def test_a_target_that_does_not_exist_is_answered_with_the_nearest_names() -> None:
    net = nn.ModuleDict({"layer3": nn.Linear(2, 2), "layer4": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"`target` to name a submodule, but there is no 'layer5'.*'layer4'"):
        draw_mask(net, split="wels", target="layer5")


def test_lazy_complex_and_integer_parameters_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"`0\.weight` belongs to a lazy module"):
        draw_mask(nn.Sequential(nn.LazyLinear(3)), split="wels")
    with pytest.raises(ValueError, match=r"`weight` is torch\.complex64"):
        draw_mask(nn.Linear(3, 3, dtype=torch.complex64), split="wels")
    net = two_layers()
    net[0].weight = nn.Parameter(torch.ones(8, 6, dtype=torch.int32), requires_grad=False)
    with pytest.raises(ValueError, match=r"`0\.weight` is torch\.int32"):
        draw_mask(net, split="wels")
    # A target without the parameter is what the message suggests.
    assert bool(draw_mask(net, split="wels", target="2")["0.weight"].all())


@pytest.mark.parametrize(
    ("parametrise", "remedy"),
    [
        (parametrizations.weight_norm, "remove_parametrizations"),
        (parametrizations.spectral_norm, "remove_parametrizations"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
        (lambda module: prune.random_unstructured(module, "weight", 0.5), "prune.remove"),
        pytest.param(
            nn.utils.weight_norm,
            "remove_weight_norm",
            marks=pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated"),
        ),
    ],
)
def test_parametrised_weights_are_refused_with_the_call_that_makes_them_plain(parametrise, remedy) -> None:
    net = two_layers()
    parametrise(net[2])
    with pytest.raises(ValueError, match=rf"`2\.weight` is parametrised .*{remedy}\(module, 'weight'\)"):
        draw_mask(net, split="wels")
    assert draw_mask(net, split="wels", target="0").fit_share < 1


@pytest.mark.parametrize("split", ["wels", "layers"])
def test_a_network_without_anything_to_split_is_refused(split: str) -> None:
    with pytest.raises(ValueError, match="would be fit"):
        draw_mask(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), split=split)


def test_an_own_split_object_is_used() -> None:
    class OnlyBiases(Split):
        name = "only-biases"

        def draw(self, context: SplitContext) -> Mask:
            return Mask.from_tensors(
                {n: torch.full(p.shape, n.endswith("bias")) for n, p in context.model.named_parameters()}
            )

    mask = draw_mask(two_layers(), split=OnlyBiases())
    assert mask.fit_share == pytest.approx(12 / (12 + 48 + 32))


@pytest.mark.parametrize("split", [Wels(0.3), Layers("2")])
def test_wrapped_networks_have_the_masks_of_plain_ones(split: Split) -> None:
    net = two_layers()
    plain = draw_mask(net, split)
    assert draw_mask(torch.compile(net), split) == plain
    assert draw_mask(nn.DataParallel(net), split) == plain
    inside = draw_mask(nn.ModuleDict({"net": torch.compile(net)}), "wels")
    assert list(inside) == [f"net.{name}" for name in plain]


def test_drawing_leaves_network_and_random_streams_alone() -> None:
    net = two_layers()
    before, state = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    draw_mask(net, "wels")
    draw_mask(net, "layers")
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("seed", [None, "a", 1.5, -1, True])
def test_seeds_are_whole_numbers(seed: Any) -> None:
    with pytest.raises(ValueError, match="Expected argument `seed` to be a whole number of at least 0, but got"):
        draw_mask(nn.Linear(4, 4), split="wels", seed=seed)


@pytest.mark.parametrize("model", [None, dict(nn.Linear(2, 2).named_parameters())], ids=["None", "parameters"])
def test_what_is_no_network_is_refused(model: Any) -> None:
    with pytest.raises(
        TypeError, match=r"Expected argument `model` to be a network \(a `torch.nn.Module`\), but got a"
    ):
        draw_mask(model, split="wels")


def test_targets_are_names() -> None:
    with pytest.raises(TypeError, match="Expected argument `target` to be the name of a submodule, but got 5"):
        draw_mask(nn.Linear(4, 4), split="wels", target=5)  # type: ignore[arg-type]


class Own(Split):
    name = "own"

    def __init__(self, drawn: Any) -> None:
        self.drawn = drawn

    def draw(self, context: SplitContext) -> Any:
        return self.drawn


@pytest.mark.parametrize(
    ("drawn", "kind", "message"),
    [
        ({"weight": torch.ones(1, 2) > 0}, TypeError, r"split 'own' to draw a mask, but its `draw` returned a dict"),
        (
            Mask.from_tensors({"weight": torch.tensor([[True, False]])}),
            ValueError,
            r"for `bias` of shape \(1,\) it leaves it out",
        ),
        (
            Mask.from_tensors({"weight": torch.tensor([True, False]), "bias": torch.tensor([True])}),
            ValueError,
            r"for `weight` of shape \(1, 2\) it has the shape \(2,\)",
        ),
    ],
    ids=["no mask", "a part", "another shape"],
)
def test_what_an_own_split_draws_is_looked_at(drawn: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        draw_mask(nn.Linear(2, 1), split=Own(drawn))


def test_an_own_split_without_a_name_is_refused() -> None:
    class Nameless(Split):
        def draw(self, context: SplitContext) -> Mask:
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"Expected argument `split` to have a name .* class Nameless has none"):
        draw_mask(nn.Linear(2, 1), split=Nameless())
