"""A mask of one's own is used as it is, or refused with what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.splits import FixedMask, draw_mask


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def members() -> dict[str, Tensor]:
    return {name: torch.rand(p.shape) < 0.5 for name, p in network().named_parameters()}


def test_tensors_masks_and_files_are_one_and_the_same(tmp_path: Path) -> None:
    given = members()
    mask = Mask.from_tensors(given)
    torch.save(mask.state_dict(), tmp_path / "mask.pt")
    for form in (given, mask, tmp_path / "mask.pt", str(tmp_path / "mask.pt")):
        split = FixedMask(form)
        assert draw_mask(network(), split) == mask
        assert not split.structured
        assert split.identity() == FixedMask(mask).identity()


def test_masks_that_differ_in_one_entry_are_not_the_same_run() -> None:
    given = members()
    before = FixedMask(given).identity()
    given["0.weight"][2, 1] ^= True
    assert FixedMask(given).identity() != before


def test_the_mask_of_a_structured_split_keeps_its_structure() -> None:
    net = network()
    split = FixedMask(draw_mask(net, "kels", 0.5, example_input=torch.zeros(1, 4)))
    assert split.structured
    assert draw_mask(net, split).structure is not None


def test_a_mask_that_is_no_bool_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Expected argument `mask` to be a mask, bool tensors .* but got a NoneType"):
        FixedMask(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"mask of `0\.weight` to be a bool tensor"):
        FixedMask({"0.weight": torch.ones(6, 4)})


def test_masks_of_other_networks_are_refused() -> None:
    inside = FixedMask({f"net.{name}": member for name, member in members().items()})
    with pytest.raises(ValueError, match=r"`net\.0\.weight` of the mask is none of its parameters .*'0\.weight'"):
        draw_mask(network(), inside)
    some = members()
    del some["2.bias"]
    with pytest.raises(ValueError, match=r"the mask has nothing for `2\.bias`"):
        draw_mask(network(), FixedMask(some))
    wide = {**members(), "0.weight": torch.ones(6, 5, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"mask of `0\.weight` to have shape \(6, 4\), but got \(6, 5\)"):
        draw_mask(network(), FixedMask(wide))


def test_a_mask_that_redraws_outside_of_the_target_is_refused() -> None:
    only_late = {name: torch.full_like(member, name[0] == "0") for name, member in members().items()}
    assert draw_mask(network(), FixedMask(only_late), target="2").fit_share < 1
    with pytest.raises(ValueError, match=r"wholly True outside of `target` '0', but `2\.weight` would be redrawn"):
        draw_mask(network(), FixedMask(only_late), target="0")
