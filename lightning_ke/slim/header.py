"""What a slim network's file says beside its tensors: which channels of the dense network they are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_ke import naming
from lightning_ke.structure import Axis, Cut, Structure

_VERSION = 1
_KINDS = {"version": int, "class": str, "axes": list, "cuts": dict, "attributes": dict, "dtypes": dict}
_FLOATS = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}


@dataclass(frozen=True)
class Header:
    """The kept channels of a saved network, in JSON's types.

    Args:
        content: "version"; "class", the network's; "axes", for each run of channels its dense size and the first and
            last + 1 of each run of kept ones; "cuts", for each tensor and dimension the position in "axes" or -1;
            "attributes", numbers that modules hold; "dtypes" of floating-point buffers outside of the state_dict.
        source: The file, as error messages name it.
    """

    content: Mapping[str, Any]
    source: str = "the file"

    @classmethod
    def describe(cls, network: nn.Module, part: nn.Module, structure: Structure) -> Header:
        """Describe a part of a slim network.

        Args:
            network: The whole slim network, unwrapped.
            part: The submodule that is saved, or the network itself.
            structure: What the whole network was cut by.
        """
        names = {id(tensor): name for name, tensor in tensors_of(network)}
        cut = {name: structure.cuts.get(names[id(tensor)]) for name, tensor in tensors_of(part)}
        used = sorted({axis for own in cut.values() if own is not None for axis in own.axes if axis >= 0})
        modules = {id(module): name for name, module in naming.named_modules(network)}
        attributes = {
            name: dict(structure.attributes.get(modules[id(module)], {})) for name, module in naming.named_modules(part)
        }
        _, transient = state_of(part)
        return cls(
            {
                "version": _VERSION,
                "class": type(part).__qualname__,
                "axes": [[structure.axes[axis].size, *_runs(structure.axes[axis].kept)] for axis in used],
                "cuts": {
                    name: [used.index(axis) if axis >= 0 else -1 for axis in own.axes]
                    for name, own in cut.items()
                    if own is not None
                },
                "attributes": {name: values for name, values in attributes.items() if values},
                "dtypes": {name: str(buffer.dtype) for name, buffer in transient.items() if buffer.is_floating_point()},
            }
        )

    @classmethod
    def parse(cls, text: str, source: str) -> Header:
        """Read a header back.

        Args:
            text: What `text` returned.
            source: The file, as error messages name it.

        Raises:
            ValueError: If it is damaged, or of another version.
        """
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        header = cls(content, source)
        if not isinstance(content, dict) or type(content.get("version")) is not int:
            raise header.damaged()
        if content["version"] != _VERSION:
            raise ValueError(
                f"Expected {source!r} to be of format version {_VERSION}, but it is of version {content['version']}. "
                "Read it with the version of lightning_ke that wrote it, or a later one."
            )
        complete = all(isinstance(content.get(name), kind) for name, kind in _KINDS.items())
        if not complete or not all(map(_is_axis, content["axes"])):
            raise header.damaged()
        return header

    def text(self) -> str:
        """The header as compact JSON."""
        return json.dumps(self.content, separators=(",", ":"))

    def structure(self, network: nn.Module) -> Structure:
        """The kept channels, checked against the dense network that is to be cut.

        Args:
            network: What the factory has built, unwrapped.

        Raises:
            ValueError: If the header is damaged, or of another network.
        """
        held, axes = dict(tensors_of(network)), self.content["axes"]
        cuts = {}
        for name, positions in self.content["cuts"].items():
            if not isinstance(positions, list) or not all(type(at) is int and -1 <= at < len(axes) for at in positions):
                raise self.damaged()
            if name not in held:
                raise self.other(f"what it builds has no `{name}`")
            shape = tuple(held[name].shape)
            wanted: list[int | None] = [axes[at][0] if at >= 0 else None for at in positions]
            if len(wanted) != len(shape) or any(
                w != size for w, size in zip(wanted, shape, strict=True) if w is not None
            ):
                sizes = ", ".join("any" if size is None else str(size) for size in wanted)
                raise self.other(f"`{name}` has shape {shape} in place of ({sizes})")
            cuts[name] = Cut(shape, tuple(positions))
        # So only sizes that a tensor of the network has are ever allocated.
        if {at for cut in cuts.values() for at in cut.axes if at >= 0} != set(range(len(axes))):
            raise self.damaged()
        return Structure(tuple(map(_axis, axes)), cuts, attributes=self._attributes(network))

    def _attributes(self, network: nn.Module) -> Mapping[str, Mapping[str, Any]]:
        modules = dict(naming.named_modules(network))
        attributes: Mapping[str, Mapping[str, Any]] = self.content["attributes"]
        for name, values in attributes.items():
            if name not in modules or not isinstance(values, dict):
                raise self.other(f"what it builds has no module `{name}`")
            for attribute, value in values.items():
                # Only numbers take the place of numbers: a file must not replace a method.
                if not _replaces(value, vars(modules[name]).get(attribute)):
                    raise self.other(f"its module `{name}` has no number `{attribute}`")
        return attributes

    def check_class(self, network: nn.Module) -> None:
        """Refuse a network of another class than the one that was saved, and one that is not ready to be cut.

        Args:
            network: What the factory has built, unwrapped.

        Raises:
            ValueError: If it is of another class, or has parameters that are not initialised.
        """
        if type(network).__qualname__ != self.content["class"]:
            raise self.other(f"it builds a `{type(network).__qualname__}`")
        for name, parameter in naming.named_parameters(network):
            if is_lazy(parameter):
                raise ValueError(
                    f"Expected `model_factory` to build a network whose parameters are initialised, but `{name}` "
                    "belongs to a lazy module. Let it pass one batch through the network."
                )

    def check_names(self, network: nn.Module, saved: Iterable[str]) -> None:
        """Refuse a network whose tensors have other names than those that were saved.

        Args:
            network: What the factory has built, unwrapped.
            saved: Names of the tensors in the file.

        Raises:
            ValueError: If the names differ.
        """
        state, _ = state_of(network)
        for name in sorted(state.keys() ^ set(saved)):
            which = "the file has no" if name in state else "what it builds has no"
            raise self.other(f"{which} `{name}` (tensors that are tied are saved once)")

    def dtype(self, name: str, default: torch.dtype) -> torch.dtype:
        """The dtype of a buffer outside of the state_dict.

        Args:
            name: Canonical name of the buffer.
            default: Its dtype in the dense network.
        """
        return _FLOATS.get(str(self.content["dtypes"].get(name)), default)

    def other(self, difference: str) -> ValueError:
        """The error for a factory that builds another network.

        Args:
            difference: What differs.
        """
        return ValueError(
            f"Expected `model_factory` to build the dense network that {self.source!r} was cut from, a "
            f"`{self.content['class']}`, but {difference}. Let it build the same class with the same arguments."
        )

    def damaged(self) -> ValueError:
        """The error for a header that nobody can have meant."""
        return ValueError(
            f"Expected the header of {self.source!r} to name the kept channels, but it is damaged. Write the file "
            "again with `save_slim`."
        )


def tensors_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer once, under its canonical name.

    Args:
        network: A network.
    """
    yield from naming.named_parameters(network)
    yield from naming.named_buffers(network)


def state_of(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that belong to a network's state_dict, and the buffers that do not.

    Args:
        network: A network.
    """
    transient = {
        id(module._buffers.get(name)) for module in network.modules() for name in module._non_persistent_buffers_set
    }
    held = dict(tensors_of(network))
    return (
        {name: tensor for name, tensor in held.items() if id(tensor) not in transient},
        {name: tensor for name, tensor in held.items() if id(tensor) in transient},
    )


def _runs(kept: Tensor) -> list[int]:
    """Ascending positions as first and last + 1 of each run of neighbours, one after the other."""
    positions = kept.long()
    ends = (positions.diff() != 1).nonzero().squeeze(1)
    firsts = positions[torch.cat([ends.new_zeros(1), ends + 1])]
    lasts = positions[torch.cat([ends, ends.new_tensor([len(positions) - 1])])]
    runs: list[int] = torch.stack([firsts, lasts + 1], 1).flatten().tolist()
    return runs


def _axis(item: list[int]) -> Axis:
    runs = zip(item[1::2], item[2::2], strict=True)
    kept = [torch.arange(first, last, dtype=torch.int32, device="cpu") for first, last in runs]
    return Axis(item[0], torch.cat(kept))


def _is_axis(item: Any) -> bool:
    """Whether a list is a size and ascending runs of positions below it."""
    return (
        isinstance(item, list)
        and len(item) % 2 == 1
        and len(item) > 1
        and all(type(number) is int for number in item)
        and item[1] >= 0
        and item[-1] <= item[0]
        and all(first < second for first, second in itertools.pairwise(item[1:]))
    )


def _replaces(value: Any, present: Any) -> bool:
    """Whether a number, or a list of numbers, may take the place of what a module holds."""
    if isinstance(present, (tuple, list)):
        return isinstance(value, list) and len(value) == len(present) and all(map(_replaces, value, present))
    return type(value) in (int, float) and type(present) is type(value)
