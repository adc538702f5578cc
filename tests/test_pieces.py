"""Layers that are drawn piece by piece get the values that their own reset would give them as a whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.keyed_rng import stable_seed
from lightning_ke.masks import Mask
from lightning_ke.pieces import rows_at_once, uniform_fills
from lightning_ke.redrawing import redraw
from lightning_ke.resets import LayerReset
from lightning_ke.units import StandIn, Unit

#: Odd sizes of more than one piece; rows that are longer than a piece; several parameters, drawn one after the other.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(1001, 517),
    "long rows": lambda: nn.Linear(70001, 3),
    "no bias": lambda: nn.Linear(333, 777, bias=False),
    "convolution": lambda: nn.Conv2d(67, 131, 3),
    "grouped": lambda: nn.Conv2d(64, 1024, 5, groups=8),
    "transposed": lambda: nn.ConvTranspose2d(131, 67, 3),
    "bilinear": lambda: nn.Bilinear(61, 53, 47),
    "lstm": lambda: nn.LSTM(230, 90, num_layers=2, bidirectional=True),
}


def uniform(layer: nn.Module) -> bool:
    return uniform_fills(Unit("0", layer, dict(layer.named_parameters()))) is not None


def half(layer: nn.Module) -> Mask:
    generator = torch.Generator().manual_seed(0)
    return Mask.from_tensors(
        {f"0.{name}": torch.rand(p.shape, generator=generator) < 0.5 for name, p in layer.named_parameters()}
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_values_are_those_of_the_layers_own_reset(name: str, dtype: torch.dtype) -> None:
    layer = LAYERS[name]()
    assert uniform(layer)
    assert any(len(p) > rows_at_once(tuple(p.shape)) for p in layer.parameters()), "more than one piece"
    net, twin, mask = nn.Sequential(layer.to(dtype)), LAYERS[name](), half(layer)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    redraw(net, mask, generation=3, seed=5)
    torch.manual_seed(stable_seed(5, 3, "0"))
    twin.reset_parameters()  # type: ignore[operator]  # each of them has it
    for name, parameter in twin.named_parameters():
        expected = torch.where(mask[f"0.{name}"], before[name], parameter.detach().to(dtype))
        assert torch.equal(layer.get_parameter(name), expected)


def test_what_is_not_redrawn_takes_its_share_of_the_random_numbers() -> None:
    net, twin = nn.Sequential(nn.Linear(5, 3)), nn.Linear(5, 3)
    none = {"0.weight": torch.zeros(3, 5, dtype=torch.bool), "0.bias": torch.zeros(3, dtype=torch.bool)}
    weight = net[0].weight.detach().clone()
    report = redraw(net, Mask.from_tensors(none), generation=2, exclude=["*.weight"])
    torch.manual_seed(stable_seed(0, 2, "0"))
    twin.reset_parameters()
    assert report.redrawn == {"0.bias": 3}
    assert torch.equal(net[0].bias, twin.bias)
    assert torch.equal(net[0].weight, weight)


class Doubled(nn.Linear):
    """Writes something else behind torch's own reset."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(2)


def by_hand(self: nn.Linear) -> None:
    nn.init.constant_(self.weight, 3.0)
    nn.init.constant_(self.bias, 3.0)


def test_resets_that_somebody_wrote_run_once_on_a_whole_copy() -> None:
    assert not uniform(Doubled(2, 2))
    layer = nn.Linear(2, 2)
    layer.reset_parameters = by_hand.__get__(layer)  # type: ignore[method-assign]  # as users do
    assert not uniform(layer)
    assert not uniform(nn.Embedding(10, 3, padding_idx=0)), "normal values, and one row of zeros"
    assert not uniform(nn.MultiheadAttention(4, 2))
    assert not uniform(torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "its weight is computed"


def test_a_reset_with_another_draw_is_asked_for_every_layer() -> None:
    class Threes(LayerReset):
        def draw(self, stand_in: StandIn) -> None:
            for values in stand_in.parameters.values():
                values.fill_(3.0)

    patched = LayerReset()
    patched.draw = Threes.draw.__get__(patched)  # type: ignore[method-assign]  # as tests do
    for reset in (Threes(), patched):
        layer = nn.Linear(4, 4, bias=False)
        redraw(layer, Mask.from_tensors({"weight": torch.zeros(4, 4, dtype=torch.bool)}), generation=2, reset=reset)
        assert (layer.weight == 3).all()


def test_a_reset_that_an_instance_has_of_its_own_draws_into_the_copy() -> None:
    layer = nn.Linear(4, 4)
    layer.reset_parameters = by_hand.__get__(layer)  # type: ignore[method-assign]  # as users do
    kept = torch.eye(4, dtype=torch.bool)
    before = layer.weight.detach().clone()
    redraw(layer, Mask.from_tensors({"weight": kept, "bias": kept[0]}), generation=2)
    assert torch.equal(layer.weight, torch.where(kept, before, torch.tensor(3.0)))


def test_a_reset_that_writes_into_the_network_itself_is_named() -> None:
    layer = nn.Linear(4, 4)

    def reset() -> None:
        nn.init.zeros_(layer.weight)

    layer.reset_parameters = reset  # type: ignore[method-assign]  # as users do
    masks: dict[str, Tensor] = {"weight": torch.eye(4) > 0, "bias": torch.ones(4, dtype=torch.bool)}
    with pytest.raises(RuntimeError, match=r"Expected `reset_parameters` of `model` .* but it wrote into the network"):
        redraw(layer, Mask.from_tensors(masks), generation=2)
