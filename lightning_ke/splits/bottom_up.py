"""Bottom-up redrawing: each generation keeps one block more than the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_ke.masks import Mask
from lightning_ke.splits.base import Split, SplitContext
from lightning_ke.splits.layers import Layers


@dataclass(frozen=True)
class BottomUp(Split):
    """Redraw everything from a block up, and begin one block later in each generation; the last one stays.

    What survives all redraws, everything below the first block, counts as fit. With the phase `Rescale` this is the
    layer-wise reinitialisation of Alabdulmohsin and others.

    Args:
        starts: Canonical names of the blocks, from below; generation 2 redraws from the first one up, generation 3 from
            the second one, and so on.

    Raises:
        ValueError: If there is none.

    Source:
        "The Impact of Reinitialization on Generalization in Convolutional Neural Networks" (arXiv 2109.00267).

    Example:
        >>> from torch import nn
        >>> net, split = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4))), BottomUp(("1", "2", "3"))
        >>> context = SplitContext(net, (), None, seed=0, generation=3)
        >>> survivors = split.survivors(split.draw(context), context)
        >>> [bool(survivors[f"{layer}.weight"].all()) for layer in range(4)]
        [True, True, False, False]
    """

    starts: tuple[str, ...]

    name: ClassVar[str] = "bottom-up"
    survivors_vary = True

    def __post_init__(self) -> None:
        given: object = self.starts
        if isinstance(given, str) or not given:
            raise ValueError(
                f"Expected argument `starts` to name one block or more, from below, but got {self.starts!r}. Give for "
                "example ('layer2', 'layer3', 'layer4')."
            )
        object.__setattr__(self, "starts", tuple(self.starts))

    def draw(self, context: SplitContext) -> Mask:
        """Mark the layers below the first block as fit.

        Args:
            context: The network.
        """
        return Layers(self.starts[0]).draw(context)

    def survivors(self, mask: Mask, context: SplitContext) -> Mask:
        """Return the layers below the generation's block."""
        number = min(max(context.generation, 2) - 2, len(self.starts) - 1)
        return Layers(self.starts[number]).draw(context)

    def identity(self) -> dict[str, Any]:
        """The name and the blocks."""
        return {"split": self.name, "starts": list(self.starts)}
