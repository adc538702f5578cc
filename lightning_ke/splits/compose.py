"""Two splits in one: what is fit comes from the first, what is redrawn from both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_ke.masks import Mask
from lightning_ke.naming import named_parameters
from lightning_ke.packing import Entry, Whole, pack_drawn
from lightning_ke.splits.base import RedrawSet, Split, SplitContext, StepScore


@dataclass(frozen=True)
class Compose(Split):
    """Keep the fit hypothesis of one split, and redraw also what another one redraws.

    ``Compose(fit=Kels(0.5), redraw=Layers("layer4"))`` has the slim network of `Kels`; each generation redraws the rest
    of the network and, of the slim network itself, everything from ``layer4`` up.

    Args:
        fit: Decides what is fit: mask, slim network and scores are its own.
        redraw: What it does not keep is redrawn, too, fit or not.

    Raises:
        TypeError: If one of them is no split object.
        ValueError: If the two cannot be combined.

    Example:
        >>> import torch
        >>> from lightning_ke.splits import Layers, Wels, draw_mask
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 2, bias=False))
        >>> split = Compose(fit=Wels(0.5), redraw=Layers("1"))
        >>> mask = draw_mask(net, split)
        >>> survivors = split.survivors(mask, SplitContext(net, (), None, seed=0, generation=2))
        >>> {name: int(member.sum()) for name, member in mask.items()}
        {'0.weight': 8, '1.weight': 4}
        >>> {name: int(member.sum()) for name, member in survivors.items()}
        {'0.weight': 8, '1.weight': 0}
    """

    fit: Split
    redraw: Split

    name: ClassVar[str] = "compose"

    def __post_init__(self) -> None:
        for role, part in (("fit", self.fit), ("redraw", self.redraw)):
            if not isinstance(part, Split):
                raise TypeError(
                    f"Expected argument `{role}` to be a split object, but got {part!r}. Write, for example, "
                    "`Compose(fit=Kels(0.5), redraw=Layers())`."
                )
        if 1 < self.redraw.last_draw < math.inf:
            raise ValueError(
                f"Expected argument `redraw` to be a split that redraws the same in all generations, or whose mask is "
                f"new in each, but {self.redraw.name!r} is settled in generation {self.redraw.last_draw}. Give it as "
                "`fit`, or draw its mask beforehand and give a `FixedMask`."
            )
        if self.fit.step_score is not None and self.redraw.step_score is not None:
            raise ValueError(
                f"Expected one split at most that scores weights by the training's steps, but got {self.fit.name!r} "
                f"and {self.redraw.name!r}. Replace one of them."
            )
        # A frozen dataclass is filled in this way.
        object.__setattr__(self, "structured", self.fit.structured)
        object.__setattr__(self, "needs_calls", self.fit.needs_calls or self.redraw.needs_calls)
        object.__setattr__(self, "reads_values", self.fit.reads_values or self.redraw.reads_values)
        object.__setattr__(self, "listens", self.fit.listens or self.redraw.listens)
        object.__setattr__(self, "may_keep_all", self.fit.may_keep_all)
        object.__setattr__(self, "last_draw", self.fit.last_draw)
        varies = self.fit.survivors_vary or self.redraw.survivors_vary or self.redraw.last_draw > 1
        object.__setattr__(self, "survivors_vary", varies)

    @property
    def step_score(self) -> StepScore | None:
        """That of the part that has one."""
        return self.fit.step_score or self.redraw.step_score

    def draw(self, context: SplitContext) -> Mask:
        """Draw the mask of `fit`.

        Args:
            context: The network and how it is run.
        """
        return self.fit.draw(context)

    def survivors(self, mask: Mask, context: SplitContext) -> Mask:
        """Return what both splits leave alone.

        Args:
            mask: The mask of `fit`.
            context: The network; `context.generation` is the generation to be opened.
        """
        return _survivors_of(self.redraws(mask, context), context)

    def redraws(self, mask: Mask, context: SplitContext) -> Sequence[RedrawSet]:
        """Return what both splits redraw in the run's own way as one set, then whatever they redraw in ways of theirs.

        Args:
            mask: The mask of `fit`.
            context: The network; `context.generation` is the generation to be opened.
        """
        sets = [*self.fit.redraws(mask, context), *self.redraw.redraws(self.redraw.draw(context), context)]
        own = [each for each in sets if each.reset is None]
        if not own:
            return sets
        return (RedrawSet(_survivors_of(own, context)), *(each for each in sets if each.reset is not None))

    def identity(self) -> dict[str, Any]:
        """The name of the split, and both of its parts."""
        return {"split": self.name, "fit": self.fit.identity(), "redraw": self.redraw.identity()}


def _survivors_of(sets: Sequence[RedrawSet], context: SplitContext) -> Mask:
    """What all sets leave alone; the structure, if there is one, is that of the first."""
    first, *others = (each.survivors for each in sets)
    parameters = dict(named_parameters(context.model))
    entries = {name: first.entry(name) for name in first}
    for other in others:
        entries = {name: _both(parameters[name], entry, other.entry(name)) for name, entry in entries.items()}
    return Mask(entries, first.structure)


def _both(parameter: Tensor, one: Entry, other: Entry) -> Entry:
    """The packed mask of the entries that are kept by both."""
    for first, second in ((one, other), (other, one)):
        if isinstance(first, Whole):
            return second if first.fit else first
    return pack_drawn(parameter, lambda: one.tensor() & other.tensor())
