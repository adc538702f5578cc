"""Bottom-up redrawing: each generation keeps one block more than the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning_ke.masks import Mask
from lightning_ke.splits.base import Split, SplitContext
from lightning_ke.splits.layers import Layers, outermost_blocks


@dataclass(frozen=True)
class BottomUp(Split):
    """Redraw everything from a block up, and begin one block later in each generation; the last one stays.

    What survives all redraws, everything below the first block, counts as fit. With the phase `Rescale` this is the
    layer-wise reinitialisation of Alabdulmohsin and others.

    Args:
        starts: Canonical names of the blocks, from below; generation 2 redraws from the first one up, generation 3 from
            the second one, and so on. None takes the outermost blocks that hold layers, all but the first: in a ResNet
            ``layer1`` to ``layer4`` and ``fc``.

    Raises:
        ValueError: If it is no list of names or empty; from `draw` if the network is one single block, or if the blocks
            are not named from below up.

    Source:
        "The Impact of Reinitialization on Generalization in Convolutional Neural Networks" (arXiv 2109.00267).

    Example:
        >>> from torch import nn
        >>> net, split = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4))), BottomUp(("1", "2", "3"))
        >>> context = SplitContext(net, (), None, seed=0, generation=3)
        >>> survivors = split.survivors(split.draw(context), context)
        >>> print(*(bool(survivors[f"{layer}.weight"].all()) for layer in range(4)))
        True True False False
    """

    starts: tuple[str, ...] | None = None

    name: ClassVar[str] = "bottom-up"
    survivors_vary = True

    def __post_init__(self) -> None:
        given: object = self.starts
        if given is None:
            return
        names = given if isinstance(given, Sequence) and not isinstance(given, str) else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"Expected argument `starts` to name one block or more, from below, but got {self.starts!r}. Give for "
                "example ('layer2', 'layer3', 'layer4')."
            )
        object.__setattr__(self, "starts", tuple(names))

    def draw(self, context: SplitContext) -> Mask:
        """Mark the layers below the first block as fit.

        Args:
            context: The network.
        """
        starts = self._starts(context)
        masks = [Layers(start).draw(context) for start in starts]
        for earlier, later, below, above in zip(starts, starts[1:], masks, masks[1:], strict=False):
            if not below.fit_share < above.fit_share:
                raise ValueError(
                    f"Expected argument `starts` to name blocks from below up, but {later!r} does not begin above "
                    f"{earlier!r} in the order in which the network registers them. Name them in that order."
                )
        return masks[0]

    def survivors(self, mask: Mask, context: SplitContext) -> Mask:
        """Return the layers below the generation's block."""
        starts = self._starts(context)
        return Layers(starts[min(max(context.generation, 2) - 2, len(starts) - 1)]).draw(context)

    def identity(self) -> dict[str, Any]:
        """The name and the blocks."""
        return {"split": self.name, "starts": None if self.starts is None else list(self.starts)}

    def _starts(self, context: SplitContext) -> Sequence[str]:
        starts = self.starts if self.starts is not None else outermost_blocks(context)[1:]
        if not starts:
            raise ValueError(
                f"Expected the network to have several blocks for split {self.name!r}, but all its layers are in one. "
                "Name blocks by `starts`."
            )
        return starts
