"""Redrawn filters point where the layer has not looked yet."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_ke.masks import Mask
from lightning_ke.redrawing import redraw
from lightning_ke.resets import Orthogonal


def rows(layer: nn.Module, dim: int) -> torch.Tensor:
    return layer.weight.detach().movedim(dim, 0).flatten(1).clone()


def redrawn(layer: nn.Module, dim: int, gone: torch.Tensor, reset: object) -> torch.Tensor:
    shape = [-1 if at == dim else 1 for at in range(layer.weight.dim())]
    mask = Mask.from_tensors(
        {"weight": (~gone).view(shape).expand(layer.weight.shape), "bias": torch.ones_like(layer.bias).bool()}
    )
    redraw(layer, mask, 2, seed=3, reset=reset)
    return rows(layer, dim)


@settings(max_examples=25, deadline=None)
@given(filters=st.integers(2, 9), inputs=st.integers(1, 4), seed=st.integers(0, 99), transposed=st.booleans())
def test_they_are_orthogonal_to_all_that_was_there_where_there_is_room(
    filters: int, inputs: int, seed: int, transposed: bool
) -> None:
    torch.manual_seed(seed)
    layer = nn.ConvTranspose2d(inputs, filters, 3) if transposed else nn.Conv2d(inputs, filters, 3)
    dim, gone = int(transposed), torch.rand(filters) < 0.5
    old, twin = rows(layer, dim), type(layer)(inputs, filters, 3)
    own = redrawn(twin, dim, torch.ones(filters).bool(), "layer")
    new = redrawn(layer, dim, gone, Orthogonal())
    assert torch.equal(new[~gone], old[~gone])
    torch.testing.assert_close(new[gone].norm(dim=1), own[gone].norm(dim=1))
    room = old.shape[1] - torch.linalg.matrix_rank(old)
    if room == 0:
        assert torch.equal(new[gone], own[gone])
        return
    assert bool(((new[gone] @ old.T).abs() < 1e-5).all())
    if filters <= room:
        cosines = new[gone] @ new[gone].T
        assert bool(((cosines - cosines.diag().diag()).abs() < 1e-5).all())


@pytest.mark.parametrize("layer", [nn.GRU(3, 4), nn.Embedding(5, 3), nn.Linear(40, 3)])
def test_every_layer_can_be_redrawn(layer: nn.Module) -> None:
    mask = Mask.from_tensors({name: torch.zeros_like(p).bool() for name, p in layer.named_parameters()})
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    redraw(layer, mask, 2, reset="orthogonal")
    assert all(bool((p != before[name]).any()) and bool(p.isfinite().all()) for name, p in layer.named_parameters())


def test_a_layer_of_zeros_has_room_for_everything() -> None:
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    new = redrawn(layer, 0, torch.ones(3).bool(), Orthogonal())
    cosines = new @ new.T
    assert (cosines - cosines.diag().diag()).abs().max() < 1e-6
