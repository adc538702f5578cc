"""Slim networks on disk: what cannot be written or read, and what is said of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

import lightning_ke as ke
from tests.slim.conftest import IMAGE, Small


class Renamed(Small):
    pass


class Untied(Small):
    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Linear(8, 8)


Untied.__qualname__ = "Small"


def lazy() -> nn.Module:
    network = Small()
    network.head = nn.LazyLinear(5)
    return network


@pytest.mark.parametrize(
    ("factory", "error", "sentence"),
    [
        (lambda: nn.Linear(2, 2), ValueError, "a `Small`, but it builds a `Linear`. Let it build the same class"),
        (Renamed, ValueError, "it builds a `Renamed`"),
        (Untied, ValueError, "the file has no `two.weight` (tensors that are tied are saved once)"),
        (lambda: Small(16), ValueError, "`stem.weight` has shape (16, 3, 3, 3) in place of (8, any, any, any)"),
        (lambda: Small(classes=6), ValueError, "`head.weight` has shape (6, 4) in place of (5, 4)"),
        (lazy, ValueError, "`head.weight` belongs to a lazy module. Let it pass one batch"),
        (Small(), TypeError, "to be a function that builds the dense network, but got a Small"),
        ("Small", TypeError, "but got a str"),
        (dict, TypeError, "but it returned a dict"),
    ],
)
def test_a_factory_of_another_network_is_refused(
    small: Any, tmp_path: Path, factory: Any, error: type[Exception], sentence: str
) -> None:
    slim, mask = small
    ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
    with pytest.raises(error, match=re.escape(sentence)):
        ke.load_slim(tmp_path / "slim.safetensors", factory)


def test_what_cannot_be_written_is_refused(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    with pytest.raises(FileNotFoundError, match=r"`path` to lie in a folder, but there is no .*missing"):
        ke.save_slim(slim, tmp_path / "missing" / "slim.safetensors", mask)
    for metadata, error in (({"epochs": 3}, TypeError), ({"format": "mine"}, ValueError)):
        with pytest.raises(error, match="Expected argument `metadata` to"):
            ke.save_slim(slim, tmp_path / "slim.safetensors", mask, metadata=metadata)
    assert not list(tmp_path.iterdir())


def test_a_network_that_the_mask_did_not_cut_is_refused(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    path = tmp_path / "slim.safetensors"
    for other in (Small(), ke.extract_slim(Small(), ke.draw_mask(Small(), rate=0.8, example_input=IMAGE))):
        with pytest.raises(ValueError, match=re.escape("to a `stem.weight` of shape (4, 3, 3, 3), but its shape is")):
            ke.save_slim(other, path, mask)
    with pytest.raises(ValueError, match="structured split such as `kels`"):
        ke.save_slim(slim, path, ke.draw_mask(Small(), "wels"))
    assert not path.exists()


def test_a_truncated_or_foreign_file_is_refused(small: Any, tmp_path: Path) -> None:
    slim, mask = small
    path = tmp_path / "slim.safetensors"
    ke.save_slim(slim, path, mask)
    whole = path.read_bytes()
    for size in (0, 4, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated or of another kind"):
            ke.load_slim(path, Small)
    torch.save(slim.state_dict(), path)
    with pytest.raises(ValueError, match="truncated or of another kind"):
        ke.load_slim(path, Small)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"its header names no kept channels.*load_file"):
        ke.load_slim(path, Small)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ke.load_slim(tmp_path / "none.safetensors", Small)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a file."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["lightning_ke"])
    tensors = safetensors.torch.load_file(path)
    changed = change(header)
    text = changed if isinstance(changed, str) else json.dumps(header)
    safetensors.torch.save_file(tensors, path, {"lightning_ke": text})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda header: header.update(version=2), "it is of version 2. Read it with the version of lightning_ke that"),
        (lambda header: header.update(version="1"), "it is damaged"),
        (lambda header: "[1", "it is damaged"),
        (lambda header: "[1]", "it is damaged"),
        (lambda header: header.pop("cuts"), "it is damaged"),
        (lambda header: header["axes"][0].append(3), "it is damaged"),
        (lambda header: header["axes"][0].__setitem__(-1, 9), "it is damaged"),
        (lambda header: header["axes"][0].__setitem__(1, -1), "it is damaged"),
        (lambda header: header["axes"].append([10**15, 0, 10**15]), "it is damaged"),
        (lambda header: header["cuts"].update({"head.bias": [7]}), "it is damaged"),
        (lambda header: header["cuts"].update({"head.bias": "x"}), "it is damaged"),
        (lambda header: header["cuts"].update({"nowhere": [0]}), "what it builds has no `nowhere`"),
        (lambda header: header["cuts"].update({"head.bias": [0]}), "`head.bias` has shape (5,) in place of (8)"),
        (lambda header: header["cuts"].update({"stem.bias": [-1]}), "`stem.bias` has shape (8,) in place of (4,)"),
        (lambda header: header["attributes"].update({"stem": {"forward": 3}}), "has no number `forward`"),
        (lambda header: header["attributes"].update({"stem": {"padding_mode": "x"}}), "has no number `padding_mode`"),
        (lambda header: header["attributes"].update({"stem": {"training": 0}}), "has no number `training`"),
        (lambda header: header["attributes"].update({"stem": {"stride": [1, 1, 1]}}), "has no number `stride`"),
        (lambda header: header["attributes"].update({"nowhere": {"groups": 3}}), "no module `nowhere`"),
    ],
)
def test_a_header_that_fits_no_network_is_refused(
    small: Any, tmp_path: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    slim, mask = small
    path = tmp_path / "slim.safetensors"
    ke.save_slim(slim, path, mask)
    rewritten(path, change)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ke.load_slim(path, Small)


def test_without_safetensors_it_says_what_to_install(small: Any, tmp_path: Path, monkeypatch: Any) -> None:
    slim, mask = small
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "lightning-ke[export]"')):
        ke.save_slim(slim, tmp_path / "slim.safetensors", mask)
