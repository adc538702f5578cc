"""What a structured split keeps of each tensor: whole channels, stored once for all the tensors that carry them.

Channel flow (`lightning_ke.flow`) decides a `Structure`; a KELS `Mask` is read off it and `extract_slim` cuts by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """One run of channels, and which of them are kept.

    Args:
        size: Number of channels in the dense network.
        kept: int32 tensor of shape (number kept,), ascending positions in ``range(size)``.
    """

    size: int
    kept: Tensor

    @property
    def member(self) -> Tensor:
        """Bool tensor of shape (size,), True where the channel is kept."""
        member = torch.zeros(self.size, dtype=torch.bool, device=self.kept.device)
        member[self.kept.long()] = True
        return member


@dataclass(frozen=True)
class Cut:
    """How one parameter or buffer is cut.

    Args:
        shape: Shape of the dense tensor.
        axes: For each dimension the position of its `Axis` in `Structure.axes`, or -1 if the dimension stays whole.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """The kept channels of a whole network.

    Args:
        axes: The distinct runs of channels; residual streams share one, so a ResNet50 needs about 30 kB.
        cuts: How each parameter and buffer is cut, by canonical name; a tensor that is not listed stays whole.
        calls: How the network was run when its channels were followed (plain types, see `lightning_ke.flow`), so that a
            slim network can be proved without asking for an example input again.
        scales: Factors that the slim network must multiply into a tensor after cutting it (an attention divides by the
            square root of its own, now smaller, head size): by canonical name the dimension and the factors along it.
        attributes: Numbers that the slim network's modules hold (``groups``, ``num_heads``, ...): module name, then
            attribute name, then the slim value.
        unreached: Canonical names of parameters that no run of the network reached; they are wholly fit.
        train_only: Canonical names of parameters that have a say in train mode only (auxiliary heads).
        rate: The rate that was solved for where a share of the operations was asked for, else None.
        ops: The share of the dense network's operations that the slim network needs, where it was asked for.
    """

    axes: tuple[Axis, ...]
    cuts: Mapping[str, Cut]
    calls: tuple[dict[str, Any], ...] = ()
    scales: Mapping[str, tuple[int, Tensor]] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unreached: tuple[str, ...] = ()
    train_only: tuple[str, ...] = ()
    rate: float | None = None
    ops: float | None = None

    def member(self, name: str) -> Tensor:
        """Bool tensor of the dense tensor's shape, True where every coordinate is kept.

        Args:
            name: Canonical name of a tensor in `cuts`.
        """
        cut = self.cuts[name]
        member = torch.ones(cut.shape, dtype=torch.bool, device="cpu")
        for dim, axis in enumerate(cut.axes):
            if axis >= 0:
                shape = [1] * len(cut.shape)
                shape[dim] = cut.shape[dim]
                member &= self.axes[axis].member.view(shape)
        return member

    def count(self, name: str) -> int:
        """Number of kept entries of a tensor.

        Args:
            name: Canonical name of a tensor in `cuts`.
        """
        cut = self.cuts[name]
        count = 1
        for size, axis in zip(cut.shape, cut.axes, strict=True):
            count *= size if axis < 0 else len(self.axes[axis].kept)
        return count

    def narrow(self, name: str, tensor: Tensor) -> Tensor:
        """A new tensor that holds the kept entries of a dense one (or the tensor itself if it stays whole).

        Args:
            name: Canonical name of the tensor.
            tensor: The dense tensor, any dtype and device.
        """
        cut = self.cuts.get(name)
        if cut is None:
            return tensor
        for dim, axis in enumerate(cut.axes):
            if axis >= 0:
                tensor = tensor.index_select(dim, self.axes[axis].kept.to(tensor.device))
        return tensor

    def slim_values(self, name: str, tensor: Tensor) -> Tensor:
        """What a slim network holds in place of a dense tensor: its kept entries, times the tensor's factors if any.

        They have the dense tensor's memory format, so that a slim network of a fast one is fast, too.

        Args:
            name: Canonical name of the tensor.
            tensor: The dense tensor, any dtype and device; gradients flow back to it.
        """
        kept = self.narrow(name, tensor)
        if name in self.scales:
            dim, factors = self.scales[name]
            kept = kept * factors.to(kept).view([-1 if at == dim else 1 for at in range(kept.dim())])
        return _laid_out_as(tensor, kept)

    def state_dict(self) -> dict[str, Any]:
        """The structure in plain, weights-only types."""
        return {
            "axes": [{"size": axis.size, "kept": axis.kept} for axis in self.axes],
            "cuts": {name: {"shape": list(cut.shape), "axes": list(cut.axes)} for name, cut in self.cuts.items()},
            "calls": [dict(call) for call in self.calls],
            "scales": {name: [dim, factors] for name, (dim, factors) in self.scales.items()},
            "attributes": {name: dict(values) for name, values in self.attributes.items()},
            "unreached": list(self.unreached),
            "train_only": list(self.train_only),
            "rate": self.rate,
            "ops": self.ops,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Structure:
        """Rebuild a structure from `state_dict`.

        Args:
            state: What `state_dict` returned.
        """
        return cls(
            axes=tuple(Axis(int(axis["size"]), axis["kept"]) for axis in state["axes"]),
            cuts={name: Cut(tuple(cut["shape"]), tuple(cut["axes"])) for name, cut in state["cuts"].items()},
            calls=tuple(dict(call) for call in state["calls"]),
            scales={name: (int(dim), factors) for name, (dim, factors) in state["scales"].items()},
            attributes={name: dict(values) for name, values in state["attributes"].items()},
            unreached=tuple(state["unreached"]),
            train_only=tuple(state["train_only"]),
            rate=state.get("rate"),  # checkpoints of the first versions have neither
            ops=state.get("ops"),
        )


def _laid_out_as(tensor: Tensor, kept: Tensor) -> Tensor:
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is None or tensor.is_contiguous() or not tensor.is_contiguous(memory_format=last):
        return kept
    return kept.contiguous(memory_format=last)
