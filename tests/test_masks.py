"""Packed masks: nothing is lost, little is stored, and people can read them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

from lightning_ke.masks import Mask, load_mask
from lightning_ke.packing import Bits, Channels, Shard, Whole
from lightning_ke.splits import draw_mask
from lightning_ke.structure import Axis, Cut, Structure

SHAPES = st.lists(st.integers(1, 9), max_size=4).map(tuple)


@st.composite
def members(draw: st.DrawFn) -> Tensor:
    shape, seed, share = draw(SHAPES), draw(st.integers(0, 2**32)), draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@st.composite
def structures(draw: st.DrawFn) -> tuple[Structure, dict[str, tuple[int, ...]]]:
    """Tensors whose dimensions share a few runs of channels, some of them left whole."""
    axes = []
    for size in draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)):
        kept = draw(st.sets(st.integers(0, size - 1), min_size=1))
        axes.append(Axis(size, torch.tensor(sorted(kept), dtype=torch.int32)))
    cuts, shapes = {}, {"untouched.weight": (3, 2), "scalar": ()}
    for index in range(draw(st.integers(1, 4))):
        dims = draw(st.lists(st.integers(-1, len(axes) - 1), min_size=1, max_size=3))
        shape = tuple(draw(st.integers(1, 5)) if axis < 0 else axes[axis].size for axis in dims)
        cuts[f"{index}.weight"] = Cut(shape, tuple(dims))
        shapes[f"{index}.weight"] = shape
    return Structure(tuple(axes), cuts), shapes


@given(tensors=st.dictionaries(st.sampled_from("abcdef"), members(), max_size=5))
def test_plain_tensors_come_back_as_they_were(tensors: dict[str, Tensor]) -> None:
    mask = Mask.from_tensors(tensors)
    assert list(mask) == list(tensors)
    assert all(torch.equal(mask[name], tensor) for name, tensor in tensors.items())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in mask.to_tensors().items())
    assert mask == Mask.from_state_dict(mask.state_dict())


@given(drawn=structures())
def test_a_structures_masks_keep_exactly_the_kept_channels(
    drawn: tuple[Structure, dict[str, tuple[int, ...]]],
) -> None:
    structure, shapes = drawn
    mask = Mask.from_structure(structure, shapes)
    assert {name: tuple(member.shape) for name, member in mask.items()} == shapes
    for name, member in mask.items():
        expected = torch.ones(shapes[name], dtype=torch.bool)
        if name in structure.cuts:
            for position in torch.ones(shapes[name]).nonzero().tolist():
                kept = [
                    axis < 0 or bool((structure.axes[axis].kept == place).any())
                    for place, axis in zip(position, structure.cuts[name].axes, strict=True)
                ]
                expected[tuple(position)] = all(kept)
        assert torch.equal(member, expected)
        assert mask.entry(name).count() == int(expected.sum())
    assert mask == Mask.from_state_dict(mask.state_dict())


@given(member=members(), step=st.integers(1, 5), drawn=structures())
def test_blocks_are_the_pieces_of_the_whole(
    member: Tensor, step: int, drawn: tuple[Structure, dict[str, tuple[int, ...]]]
) -> None:
    structured = Mask.from_structure(*drawn)
    bits = Bits.pack(member)
    for entry in (bits, Whole(bits.shape, fit=False), *(structured.entry(name) for name in structured)):
        blocks = list(entry.blocks(step))
        whole = entry.tensor()
        assert torch.equal(torch.cat(blocks), whole if whole.ndim else whole.view(1))
        assert all(len(block) == step for block in blocks[:-1])
        assert int(whole.sum()) == entry.count()


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A part of a tensor such as a rank of a sharded network holds, maybe an empty one."""
    ends = [sorted((draw(st.integers(0, size)), draw(st.integers(0, size)))) for size in shape]
    return tuple(slice(start, stop) for start, stop in ends)


@given(drawn=structures(), member=members(), data=st.data())
def test_a_part_is_cut_out_of_the_whole(
    drawn: tuple[Structure, dict[str, tuple[int, ...]]], member: Tensor, data: st.DataObject
) -> None:
    entries = [Mask.from_structure(*drawn).entry(name) for name in drawn[1]]
    for entry in (*entries, Bits.pack(member), Whole(tuple(member.shape), fit=bool(member.any()))):
        region = data.draw(regions(entry.shape))
        assert torch.equal(entry.part(region), entry.tensor()[region])


@given(member=members(), data=st.data())
def test_a_shard_keeps_its_own_bits_and_draws_the_others_again(member: Tensor, data: st.DataObject) -> None:
    region, other = (data.draw(regions(tuple(member.shape))) for _ in range(2))
    whole, drawn = Bits.pack(member), []

    def draw() -> Tensor:
        drawn.append(member)
        return member

    shard = Shard(whole.shape, region, Bits.pack(member[region]), whole.count(), whole.digest(), draw)
    assert torch.equal(shard.part(region), member[region])
    assert not drawn
    assert torch.equal(shard.part(other), member[other])
    assert torch.equal(shard.tensor(), member)
    assert shard.count() == whole.count()
    mask = Mask({"weight": shard})
    assert mask == Mask({"weight": whole})
    assert mask.digests() == Mask({"weight": whole}).digests()
    assert mask.nbytes == math.ceil(member[region].numel() / 8)


def test_digests_tell_masks_apart() -> None:
    one, other = (Mask.from_tensors({"weight": torch.tensor(member)}) for member in ([True, False], [False, True]))
    assert one.digests() != other.digests()


def test_the_state_of_a_sharded_mask_is_a_digest_and_says_so(tmp_path: Path) -> None:
    member = torch.tensor([True, False, True])
    whole = Bits.pack(member)
    part = (slice(0, 1),)
    mask = Mask({"weight": Shard((3,), part, Bits.pack(member[part]), 2, whole.digest(), lambda: member)})
    torch.save(mask.state_dict(), tmp_path / "mask.pt")
    with pytest.raises(ValueError, match=r"run with sharded parameters wrote this one.*Draw it by `draw_mask`"):
        load_mask(tmp_path / "mask.pt")


def test_whole_tensors_cost_nothing_and_bits_an_eighth_of_a_byte() -> None:
    fit, some = torch.ones(100, 100, dtype=torch.bool), torch.rand(100, 100) < 0.5
    assert Mask.from_tensors({"a": fit, "b": ~fit}).nbytes == 0
    assert Mask.from_tensors({"a": some}).nbytes == 1250


def test_wels_masks_of_resnet50_need_a_32nd_of_the_weights_memory() -> None:
    with torch.device("meta"):
        net = models.resnet50()
    mask = draw_mask(net, "wels", 0.5)
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    assert mask.nbytes <= weights * (1 / 32 + 0.01)
    # The reference keeps its masks as float32 beside the weights.
    assert 0.49 < mask.fit_share < 0.51


def test_only_bool_tensors_are_masks() -> None:
    with pytest.raises(TypeError, match=r"the mask of `a` to be a bool tensor, but got torch\.float32"):
        Mask.from_tensors({"a": torch.ones(2)})
    for values, kind in (([True, False], "list"), (np.array([True, False]), "ndarray")):
        with pytest.raises(TypeError, match=rf"the mask of `a` to be a bool tensor, but got a {kind}\. .*as_tensor"):
            Mask.from_tensors({"a": values})  # type: ignore[dict-item]


def test_masks_compare_by_value_however_they_are_stored() -> None:
    structure = Structure((Axis(4, torch.tensor([0, 1], dtype=torch.int32)),), {"weight": Cut((4, 3), (0, -1))})
    structured = Mask.from_structure(structure, {"weight": (4, 3)})
    plain = Mask.from_tensors({"weight": structured["weight"]})
    assert isinstance(structured.entry("weight"), Channels)
    assert isinstance(plain.entry("weight"), Bits)
    assert structured == plain
    assert plain != Mask.from_tensors({"weight": ~plain["weight"]})
    assert plain != Mask.from_tensors({"other": plain["weight"]})
    assert plain != "mask"


def test_masks_compare_by_name_whatever_their_order() -> None:
    tensors = {"a": torch.tensor([True]), "b": torch.tensor([False])}
    turned = Mask.from_tensors(dict(reversed(tensors.items())))
    assert Mask.from_tensors(tensors) == turned
    assert Mask.from_tensors({**tensors, "c": torch.tensor([True])}) != turned


def test_looking_up_a_name_that_is_not_there() -> None:
    mask = Mask.from_tensors({"a": torch.ones(2, dtype=torch.bool)})
    assert "a" in mask
    assert "b" not in mask
    assert mask.get("b") is None
    with pytest.raises(KeyError):
        mask["b"]


def test_the_printed_table_shows_every_parameter_of_a_small_network() -> None:
    net = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5, bias=False))
    table = str(draw_mask(net, "wels", 0.25))
    assert table.splitlines() == [
        "parameter  shape  fit",
        "0.weight   20x10  25.0 %",
        "0.bias     20     100.0 %",
        "1.weight   5x20   25.0 %",
        "total      320    29.7 %",
    ]


def test_the_printed_table_of_a_deep_network_fits_a_screen_and_the_summary_shows_all() -> None:
    with torch.device("meta"):
        net = models.resnet152()
    mask = draw_mask(net, "layers")
    lines = str(mask).splitlines()
    assert len(lines) == 63
    assert "... 407 parameters more" in lines
    assert lines[1].startswith("conv1.weight")
    assert lines[-2].startswith("fc.bias")
    assert lines[-1].startswith("total")
    everything = mask.summary().splitlines()
    assert len(everything) == len(mask) + 2
    assert everything[-1].split()[1:] == lines[-1].split()[1:]
    assert repr(mask).startswith("Mask(467 parameters, ")


def test_the_table_of_an_empty_mask() -> None:
    assert str(Mask({})).splitlines() == ["parameter  shape  fit", "total      0      empty"]


def test_a_mask_is_read_from_a_file_and_from_a_checkpoint(tmp_path: Path) -> None:
    mask = draw_mask(nn.Linear(9, 9), "wels", 0.3)
    torch.save(mask.state_dict(), tmp_path / "mask.pt")
    callbacks = {"ModelCheckpoint{}": {"best": 1}, "KnowledgeEvolution": {"mask": mask.state_dict()}}
    torch.save({"state_dict": {}, "callbacks": callbacks}, tmp_path / "last.ckpt")
    assert load_mask(tmp_path / "mask.pt") == mask
    assert load_mask(str(tmp_path / "last.ckpt")) == mask


@pytest.mark.parametrize("content", [{"callbacks": {}}, {"callbacks": {"KnowledgeEvolution": {"mask": None}}}, [1]])
def test_a_checkpoint_without_a_mask_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt' to hold a mask, but it holds none"):
        load_mask(tmp_path / "last.ckpt")


def test_a_missing_or_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_mask(tmp_path / "none.ckpt")
    torch.save(draw_mask(nn.Linear(9, 9), "wels").state_dict(), tmp_path / "whole.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "part.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="It may be truncated"):
        load_mask(tmp_path / "part.ckpt")


@pytest.mark.parametrize("content", ["defaults:\n  - a", "if", ""])
def test_what_is_no_checkpoint_is_not_called_one_with_objects_in_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml' could not be read \(it is no file of torch's\)"):
        load_mask(tmp_path / "config.yaml")


def test_a_checkpoint_with_more_than_plain_types_says_how_to_read_it(tmp_path: Path) -> None:
    torch.save({"hyper_parameters": {"folder": tmp_path}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"to hold plain types only, but it holds pathlib\S*, such as"):
        load_mask(tmp_path / "last.ckpt")


def test_a_mask_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format version 1, but got version 2"):
        Mask.from_state_dict({"version": 2})


def test_fit_share_counts_entries_not_tensors() -> None:
    mask = Mask.from_tensors({"a": torch.ones(9, dtype=torch.bool), "b": torch.zeros(1, dtype=torch.bool)})
    assert math.isclose(mask.fit_share, 0.9)
