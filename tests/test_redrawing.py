"""The redraw: what stays, what changes, and what it must not touch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_ke.keyed_rng import stable_seed
from lightning_ke.masks import Mask
from lightning_ke.redrawing import redraw
from lightning_ke.splits import draw_mask
from tests.redrawing import all_reset, first_half, late_layers, small_cnn, snapshot, wels


@pytest.mark.parametrize("draw", [wels, late_layers, first_half])
def test_fit_weights_stay_bit_for_bit_and_every_other_weight_changes(draw: Callable[[nn.Module], Mask]) -> None:
    net = small_cnn()
    mask = draw(net)
    before = snapshot(net)
    report = redraw(net, mask, generation=2)
    for name, value in snapshot(net).items():
        if name in report.redrawn:
            assert torch.equal(value == before[name], mask[name])
            assert report.redrawn[name] == int((~mask[name]).sum())
        else:
            assert torch.equal(value, before[name])
            assert name not in mask or mask[name].all() or name.startswith("1.")
    assert report.total > 0


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 50),
    columns=st.integers(1, 50),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    transposed=st.booleans(),
)
def test_any_mask_any_precision_any_memory_layout(
    rows: int, columns: int, seed: int, dtype: torch.dtype, transposed: bool
) -> None:
    layer = nn.Linear(columns, rows, dtype=dtype)
    if transposed:
        layer.weight = nn.Parameter(torch.randn(columns, rows).to(dtype).t())
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(rows, columns, generator=generator) < 0.5
    with torch.no_grad():
        # A diverged network must not leak what it holds into either side.
        layer.weight[torch.rand(rows, columns, generator=generator) < 0.2] = math.nan
        layer.weight[torch.rand(rows, columns, generator=generator) < 0.2] = -math.inf
    before = layer.weight.detach().clone()
    redraw(layer, Mask.from_tensors({"weight": kept, "bias": torch.ones(rows, dtype=torch.bool)}), generation=2)
    after = layer.weight.detach()
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[after.element_size()]
    assert torch.equal(after.view(integers)[kept], before.view(integers)[kept])
    assert after[~kept].isfinite().all()
    assert after.dtype == dtype


def test_tensors_of_more_than_one_write_are_merged_right() -> None:
    layer = nn.Linear(1001, 517)
    for generation, mask in enumerate((draw_mask(layer, "wels", 0.4), first_half(layer)), start=2):
        before = layer.weight.detach().clone()
        redraw(layer, mask, generation=generation)
        assert torch.equal(layer.weight == before, mask["weight"])


def test_scalars_can_be_redrawn() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.scale = nn.Parameter(torch.tensor(3.0))

        def reset_parameters(self) -> None:
            super().reset_parameters()
            if hasattr(self, "scale"):
                self.scale.fill_(7.0)

    net = Scaled()
    assert redraw(net, all_reset(net), generation=2).redrawn == {"weight": 4, "bias": 2, "scale": 1}
    assert net.scale.item() == 7.0


def test_values_are_those_of_the_layers_own_reset_under_the_keyed_seed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3))
    twin = nn.Conv2d(3, 8, 3)
    redraw(net, all_reset(net), generation=4, seed=11)
    torch.manual_seed(stable_seed(11, 4, "0"))
    twin.reset_parameters()
    assert torch.equal(net[0].weight, twin.weight)
    assert torch.equal(net[0].bias, twin.bias)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("layer", [nn.Conv2d(16, 64, 3), nn.Linear(300, 200)], ids=["conv", "linear"])
def test_the_distribution_is_the_layers_own(layer: nn.Module, seed: int) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(100)
    redraw(layer, all_reset(layer), generation=2, seed=seed)
    weight = layer.weight.detach().flatten().double()
    bound = 1 / math.sqrt(weight.numel() / layer.bias.numel())
    # Kolmogorov-Smirnov distance to a uniform distribution on (-bound, bound); 1.95 / sqrt(n) is passed once in 1000.
    theirs = (weight.sort().values + bound) / (2 * bound)
    empirical = torch.arange(1, len(theirs) + 1) / len(theirs)
    assert float((theirs - empirical).abs().max()) < 1.95 / math.sqrt(len(theirs))
    assert layer.bias.detach().abs().max() <= bound
    assert layer.bias.detach().std() == pytest.approx(bound / math.sqrt(3), rel=0.3)


def test_generations_seeds_and_layers_of_one_shape_have_different_values() -> None:
    drawn = []
    for seed, generation in ((0, 2), (0, 3), (1, 2), (0, 2)):
        net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        redraw(net, all_reset(net), generation=generation, seed=seed)
        drawn.append(net)
    first = drawn[0][0].weight
    assert not torch.isin(first, drawn[0][1].weight).any()
    assert not torch.isin(first, drawn[1][0].weight).any()
    assert not torch.isin(first, drawn[2][0].weight).any()
    assert torch.equal(first, drawn[3][0].weight)


def test_numpy_seeds_and_generations_are_those_of_python() -> None:
    drawn = []
    for kind in (int, np.int64, np.uint8):
        net = nn.Linear(8, 8)
        redraw(net, all_reset(net), generation=kind(2), seed=kind(3))
        drawn.append(net.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


@given(order=st.permutations(["a", "b", "c"]), noise=st.integers(0, 100))
@settings(deadline=None, max_examples=12)
def test_values_depend_neither_on_module_order_nor_on_the_global_stream(order: list[str], noise: int) -> None:
    sizes = {"a": 2, "b": 3, "c": 4}
    nets = [nn.ModuleDict({name: nn.Linear(sizes[name], 5) for name in names}) for names in ("abc", order)]
    torch.manual_seed(noise)
    for net in nets:
        redraw(net, all_reset(net), generation=2)
    assert all(torch.equal(nets[0][name].weight, nets[1][name].weight) for name in order)


def test_values_do_not_depend_on_wrappers() -> None:
    plain, compiled, parallel = (nn.Sequential(nn.Linear(4, 4)) for _ in range(3))
    inside = nn.Sequential(nn.DataParallel(torch.compile(nn.Linear(4, 4))))
    mask = all_reset(plain)
    for net in (plain, torch.compile(compiled), nn.DataParallel(parallel), inside):
        redraw(net, mask, generation=2)
    assert torch.equal(plain[0].weight, compiled[0].weight)
    assert torch.equal(plain[0].weight, parallel[0].weight)
    assert torch.equal(plain[0].weight, next(inside.parameters()))


def test_other_precisions_hold_the_rounded_float32_values() -> None:
    single, half, double = nn.Linear(9, 9), nn.Linear(9, 9, dtype=torch.bfloat16), nn.Linear(9, 9, dtype=torch.float64)
    for net in (single, half, double):
        redraw(net, all_reset(net), generation=2)
    assert torch.equal(half.weight, single.weight.bfloat16())
    assert torch.equal(double.weight, single.weight.double())


def test_no_global_random_stream_is_touched() -> None:
    net = small_cnn()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = torch.rand(3), random.random(), np.random.rand()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    redraw(net, draw_mask(net, "wels"), generation=2)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert np.random.rand() == expected[2]


def test_a_module_that_draws_from_numpy_or_python_is_reproducible() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 2))

        def reset_parameters(self) -> None:
            values = [[np.random.rand(), random.random()], [np.random.rand(), random.random()]]
            self.weight.data.copy_(torch.tensor(values))

    nets = Odd(), Odd()
    for net in nets:
        redraw(net, all_reset(net), generation=2)
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert (nets[0].weight != 0).all()


def test_the_real_modules_own_reset_is_never_run() -> None:
    class Caching(nn.Linear):
        calls = 0

        def reset_parameters(self) -> None:
            self.calls += 1
            super().reset_parameters()

    net = Caching(3, 3)
    before, identities = net.calls, [id(parameter) for parameter in net.parameters()]
    redraw(net, all_reset(net), generation=2)
    assert net.calls == before
    assert [id(parameter) for parameter in net.parameters()] == identities


def test_a_default_device_of_the_caller_is_not_followed() -> None:
    plain, net = small_cnn(), small_cnn()
    mask = draw_mask(net, "wels")
    redraw(plain, mask, generation=2)
    with torch.device("meta"):
        redraw(net, mask, generation=2)
    kept = mask["0.weight"]
    assert torch.equal(net[0].weight[~kept], plain[0].weight[~kept])


@pytest.mark.parametrize("draw", [first_half, all_reset])
def test_norms_are_untouched_by_default(draw: Callable[[nn.Module], Mask]) -> None:
    net = small_cnn()
    before = snapshot(net)
    report = redraw(net, draw(net), generation=2)
    after = snapshot(net)
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("1."))
    assert not any(name.startswith("1.") for name in report.redrawn)
    assert report.restarted_buffers == ()


def test_norm_entries_of_the_reset_hypothesis_start_over_on_request() -> None:
    net = small_cnn()
    before = snapshot(net)
    report = redraw(net, first_half(net), generation=2, norm="reset")
    after = snapshot(net)
    for name, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
        assert torch.equal(after[f"1.{name}"][:4], before[f"1.{name}"][:4])
        assert (after[f"1.{name}"][4:] == start).all()
    assert report.redrawn["1.weight"] == report.redrawn["1.bias"] == 4
    assert report.restarted_buffers == ("1.running_mean", "1.running_var")


def test_statistics_of_a_norm_without_weights_start_over_too() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False))
    net[1].running_mean.fill_(5)
    redraw(net, first_half(net), generation=2, norm="reset")
    assert net[1].running_mean.tolist() == [5, 5, 5, 0, 0, 0]


@pytest.mark.parametrize("split", ["wels", "layers"])
def test_norm_reset_is_refused_where_norms_are_wholly_fit(split: str) -> None:
    net = small_cnn()
    with pytest.raises(ValueError, match="`norm` to be 'keep' for a mask in which every norm layer is fit"):
        redraw(net, draw_mask(net, split), generation=2, norm="reset")
