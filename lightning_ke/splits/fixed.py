"""A mask of the user's own as a split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.masks import Mask, load_mask
from lightning_ke.naming import is_below, named_parameters, nearest_names
from lightning_ke.splits.base import Split, SplitContext


@dataclass(frozen=True, eq=False)
class FixedMask(Split):
    """Use a given mask: one drawn elsewhere, read from a checkpoint, found by `find_supermask` or written by hand.

    The fit hypothesis is a slim network if the mask has a structure, as those of `Kels` and `Importance` have.

    Args:
        mask: A mask, a bool tensor for every parameter by its name in the module that is trained, or the path of a
            checkpoint or file as for `load_mask`.

    Raises:
        TypeError: If it is something else, or a tensor is not boolean.
        ValueError: If the file holds no mask or, when the mask is drawn, if it belongs to another network.

    Example:
        >>> import torch
        >>> from lightning_ke.splits import draw_mask
        >>> member = {"weight": torch.tensor([[True, False, False]]), "bias": torch.tensor([True])}
        >>> draw_mask(torch.nn.Linear(3, 1), FixedMask(member)).fit_share
        0.5
    """

    mask: Mask | Mapping[str, Tensor] | str | Path

    name: ClassVar[str] = "mask"

    def __post_init__(self) -> None:
        mask = self.mask
        if isinstance(mask, str | Path):
            mask = load_mask(mask)
        elif not isinstance(mask, Mapping):
            raise TypeError(
                "Expected argument `mask` to be a mask, bool tensors by name or the path of a checkpoint, but got a "
                f"{type(mask).__name__}."
            )
        elif not isinstance(mask, Mask):
            mask = Mask.from_tensors(mask)
        # A frozen dataclass is filled in this way; from here on it is what was read, not where it came from.
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "structured", mask.structure is not None)

    def draw(self, context: SplitContext) -> Mask:
        """Return the mask, once it is known to be one of this network.

        Args:
            context: The network.

        Raises:
            ValueError: If names or shapes differ, or if weights outside of the target would be redrawn.
        """
        assert isinstance(self.mask, Mask)
        shapes = {name: tuple(parameter.shape) for name, parameter in named_parameters(context.model)}
        unknown = [name for name in self.mask if name not in shapes]
        missing = [name for name in shapes if name not in self.mask]
        if unknown or missing:
            wrong = (
                f"`{unknown[0]}` of the mask is none of its parameters (the nearest are "
                f"{nearest_names(unknown[0], shapes)})"
                if unknown
                else f"the mask has nothing for `{missing[0]}`"
            )
            raise ValueError(
                f"Expected the mask to name the parameters of {type(context.model).__name__}, but {wrong}. Draw it "
                "from the very module that is trained: a network inside of it has other names there."
            )
        for name, shape in shapes.items():
            entry = self.mask.entry(name)
            if tuple(entry.shape) != shape:
                raise ValueError(
                    f"Expected the mask of `{name}` to have shape {shape}, but got {tuple(entry.shape)}. Draw it from "
                    "the network that is trained."
                )
            if not is_below(name, context.target) and entry.count() < math.prod(shape):
                raise ValueError(
                    f"Expected the mask to be wholly True outside of `target` {context.target!r}, but `{name}` "
                    "would be redrawn. Draw the mask with the same target, or leave `target` out."
                )
        return self.mask

    @cached_property
    def _digest(self) -> str:
        assert isinstance(self.mask, Mask)
        digest = hashlib.blake2b(digest_size=8)
        for name, member in self.mask.items():
            digest.update(name.encode() + member.numpy().tobytes())
        return digest.hexdigest()

    def identity(self) -> dict[str, Any]:
        """The name of the split, and a digest of the mask."""
        return {"split": self.name, "mask": self._digest}
