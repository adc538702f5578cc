"""The ways to draw fresh values."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.redrawing import redraw
from lightning_ke.resets import LayerReset, Reset, get_reset, list_resets
from lightning_ke.splits import draw_mask
from lightning_ke.units import StandIn


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 200))


def all_reset(model: nn.Module) -> Mask:
    return Mask.from_tensors({n: torch.zeros(p.shape, dtype=torch.bool) for n, p in model.named_parameters()})


def train(model: nn.Module) -> None:
    """Stand in for training: every parameter moves."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 3


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_every_reset_is_listed_with_a_description() -> None:
    assert list_resets() == [
        "initial",
        "kaiming_normal",
        "layer",
        "none",
        "orthogonal",
        "rewind",
        "shrink_perturb",
        "zero",
    ]
    for name in list_resets():
        assert get_reset(name).name == name
        assert get_reset(name).description


@pytest.mark.parametrize("reset", [["layer"], LayerReset, None])
def test_what_is_no_reset_is_refused(reset: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected argument `reset` to be one of 'initial', .* or a Reset object"):
        get_reset(reset)


def test_an_unknown_reset_is_refused_by_naming_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"`reset` to be one of 'initial', .* but got 'zeros'\. Did you mean 'zero'\?"):
        redraw(network(), all_reset(network()), generation=2, reset="zeros")
    with pytest.raises(ValueError, match=r"but got 'gaussian'\.$"):  # like none of them
        redraw(network(), all_reset(network()), generation=2, reset="gaussian")


@pytest.mark.parametrize("name", list_resets())
def test_with_every_reset_fit_weights_stay_and_norms_are_untouched(name: str) -> None:
    net = network()
    mask = draw_mask(net, "wels", 0.4)
    reset = get_reset(name)
    reset.remember(net, mask)
    train(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = redraw(net, mask, generation=2, reset=reset)
    for key, value in net.state_dict().items():
        expected = before[key] == value
        member = mask[key] if key in report.redrawn else torch.ones(value.shape, dtype=torch.bool)
        assert torch.equal(expected, member), key
    assert set(report.redrawn) == (set() if name == "none" else {"0.weight", "3.weight"})


@pytest.mark.parametrize("name", ["initial", "rewind"])
def test_a_reset_that_remembers_says_how_when_it_has_not(name: str) -> None:
    sentence = (
        rf"but '{name}' remembers none\. Before training: `reset = get_reset\('{name}'\); reset\.remember\(model, "
    )
    with pytest.raises(ValueError, match=sentence):
        redraw(network(), all_reset(network()), generation=2, reset=name)


def test_initial_draws_from_each_parameters_first_mean_and_deviation() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight.normal_(2, 0.5)
        net[3].bias.fill_(4)
    reset = get_reset("initial")
    reset.remember(net, all_reset(net))
    train(net)
    redraw(net, all_reset(net), generation=2, reset=reset)
    weight = net[0].weight.detach()
    error = 0.5 / math.sqrt(weight.numel())
    assert float(weight.mean()) == pytest.approx(2, abs=4 * error)
    assert float(weight.std()) == pytest.approx(0.5, abs=4 * error)
    # A normal distribution, not a uniform one of the same moments.
    assert float(((weight - weight.mean()) ** 4).mean() / weight.var() ** 2) == pytest.approx(3, abs=0.7)
    assert (net[3].bias == 4).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_rewind_restores_the_very_first_values(dtype: torch.dtype) -> None:
    net = network().to(dtype)
    first = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    mask = draw_mask(net, "wels", 0.3)
    reset = get_reset("rewind")
    reset.remember(net, mask)
    for generation in (2, 3):
        train(net)
        redraw(net, mask, generation=generation, reset=reset)
        for name in ("0.weight", "3.weight"):
            assert torch.equal(net.get_parameter(name) == first[name], ~mask[name])


def test_rewind_remembers_only_what_can_be_redrawn() -> None:
    net = nn.Linear(100, 100)
    reset = get_reset("rewind")
    reset.remember(net, draw_mask(net, "wels", 0.75))
    assert sum(values.numel() for values in reset.state_dict()["values"].values()) == 2500


def test_rewind_into_entries_that_it_did_not_remember_is_refused() -> None:
    net = nn.Linear(10, 10)
    reset = get_reset("rewind")
    reset.remember(net, draw_mask(net, "wels", 0.5, seed=0))
    with pytest.raises(ValueError, match="'rewind' to draw every redrawn entry of `weight`, but some are missing"):
        redraw(net, draw_mask(net, "wels", 0.5, seed=1), generation=2, reset=reset)


def test_rewind_remembers_everything_where_each_generation_has_its_own_mask() -> None:
    net = nn.Linear(10, 10)
    first = net.weight.detach().clone()
    reset = get_reset("rewind")
    reset.remember(net, None)
    train(net)
    for seed in (0, 1):
        mask = draw_mask(net, "wels", 0.5, seed=seed)
        redraw(net, mask, generation=2, reset=reset)
        assert torch.equal(net.weight[~mask["weight"]], first[~mask["weight"]])


@pytest.mark.parametrize("name", list_resets())
def test_what_is_remembered_survives_a_checkpoint(name: str) -> None:
    nets = network(), network()
    nets[1].load_state_dict(nets[0].state_dict())
    mask = draw_mask(nets[0], "wels")
    reset, resumed = get_reset(name), get_reset(name)
    reset.remember(nets[0], mask)
    resumed.load_state_dict(through_a_checkpoint(reset.state_dict()))
    for net, its in zip(nets, (reset, resumed), strict=True):
        train(net)
        redraw(net, mask, generation=2, reset=its)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_kaiming_normal_has_the_deviation_for_relu_and_zero_biases() -> None:
    net = network()
    redraw(net, all_reset(net), generation=2, reset="kaiming_normal")
    for layer, fan_in in ((net[0], 4 * 9), (net[3], 64)):
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_in), rel=0.06)
        assert (layer.bias == 0).all()


def test_zero_and_none() -> None:
    net = network()
    before = net[0].weight.detach().clone()
    report = redraw(net, all_reset(net), generation=2, reset="none")
    assert report.total == 0
    assert torch.equal(net[0].weight, before)
    redraw(net, all_reset(net), generation=2, reset="zero")
    assert (net[0].weight == 0).all()
    assert (net[3].bias == 0).all()


@pytest.mark.parametrize("name", ["layer", "kaiming_normal", "zero"])
def test_norms_that_are_reset_start_over_as_they_were_built(name: str) -> None:
    net = network()
    train(net)
    net[1].running_mean += 1
    redraw(net, all_reset(net), generation=2, reset=name, norm="reset")
    assert (net[1].weight == 1).all()
    assert (net[1].bias == 0).all()
    assert (net[1].running_mean == 0).all()


@pytest.mark.parametrize("name", [name for name in list_resets() if name != "none"])
@pytest.mark.parametrize("build", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_s_row_for_padding_stays_zero(build: type[nn.Embedding | nn.EmbeddingBag], name: str) -> None:
    table = build(12, 4, padding_idx=2)
    mask, reset = draw_mask(table, "everything"), get_reset(name)
    reset.remember(table, mask)
    redraw(table, mask, generation=2, reset=reset)
    assert not table.weight[2].any()
    assert bool(table.weight[1].any()) == (name != "zero")


def test_norms_are_rewound_to_their_own_first_values() -> None:
    net = network()
    nn.init.zeros_(net[1].weight)  # as in residual blocks
    mask = all_reset(net)
    for name in ("initial", "rewind"):
        reset = get_reset(name)
        reset.remember(net, mask)
        train(net)
        redraw(net, mask, generation=2, reset=reset, norm="reset")
        assert (net[1].weight == 0).all()
        assert (net[1].bias == 0).all()


class Constant(Reset):
    """An object of a user's own, with something to remember."""

    name = "constant"

    def __init__(self, forget: str = "") -> None:
        self.value = math.nan
        self.forget = forget

    @property
    def ready(self) -> bool:
        return not math.isnan(self.value)

    def remember(self, model: nn.Module, mask: Mask | None) -> None:
        self.value = float(next(model.parameters()).detach().max())

    def draw(self, stand_in: StandIn) -> None:
        for name, values in stand_in.parameters.items():
            if name != self.forget:
                values.fill_(self.value)


def test_an_own_object_draws_in_its_own_way() -> None:
    net = nn.Linear(3, 3)
    reset = Constant()
    with pytest.raises(ValueError, match="'constant' remembers none"):
        redraw(net, all_reset(net), generation=2, reset=reset)
    reset.remember(net, None)
    largest: Tensor = net.weight.max().detach()
    redraw(net, all_reset(net), generation=2, reset=reset)
    assert (net.weight == largest).all()


def test_an_own_object_that_leaves_entries_undrawn_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 3))
    reset = Constant(forget="0.bias")
    reset.remember(net, None)
    with pytest.raises(ValueError, match=r"'constant' to draw every redrawn entry of `0\.bias`"):
        redraw(net, all_reset(net), generation=2, reset=reset)


def test_an_own_object_that_changes_a_shape_is_refused() -> None:
    class Grown(Reset):
        name = "grown"

        def draw(self, stand_in: StandIn) -> None:
            stand_in.replace("0.weight", torch.zeros(5, 5))

    net = nn.Sequential(nn.Linear(3, 3, bias=False))
    with pytest.raises(ValueError, match=r"draw `0\.weight` in shape \(3, 3\), but got \(5, 5\)"):
        redraw(net, all_reset(net), generation=2, reset=Grown())


def test_an_own_object_without_a_name_is_refused() -> None:
    class Nameless(Reset):
        def draw(self, stand_in: Any) -> None:
            """Draw nothing."""

    with pytest.raises(ValueError, match=r"Expected argument `reset` to have a name .* class Nameless has none"):
        get_reset(Nameless())
