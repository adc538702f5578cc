"""What the splits that keep whole channels share: how many of them, and that the rest follows."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_ke.arguments import whole_or_none
from lightning_ke.masks import Mask
from lightning_ke.naming import named_parameters
from lightning_ke.splits.base import Split, SplitContext, check_rate


@dataclass(frozen=True, repr=False)
class ChannelSplit(Split):
    """Keep a share of the channels of every layer, or as many as a share of the operations allows.

    Args:
        rate: Share of the channels that is fit, in (0, 1); 0.5 if `ops` is not given either.
        ops: In place of `rate` the share of the network's operations that the slim network may need, in (0, 1): the
            largest rate is taken whose slim network needs no more. The mask's summary says which that is.
        round_to: Kept channels are rounded up to a multiple of this number where the network allows it (8 suits much
            hardware); None does not round.

    Raises:
        ValueError: If an argument is out of range, or if both `rate` and `ops` are given.
    """

    rate: float | None = None
    ops: float | None = None
    round_to: int | None = None

    structured = True
    needs_calls = True

    def __post_init__(self) -> None:
        # A frozen dataclass is filled in this way.
        object.__setattr__(self, "round_to", whole_or_none("round_to", self.round_to, least=1))
        if self.ops is not None:
            check_rate(self.ops, "ops", "the share of the network's operations that the slim network may need")
            if self.rate is not None:
                raise ValueError(
                    f"Expected argument `rate` to be None next to `ops={self.ops}`, which decides it, but got "
                    f"{self.rate!r}. Leave one of them out (`split.rate=null` for ke-train)."
                )
        else:
            object.__setattr__(self, "rate", check_rate(0.5 if self.rate is None else self.rate))

    def __repr__(self) -> str:
        given = (f"{name}={value!r}" for name, value in vars(self).items() if value is not None)
        return f"{type(self).__name__}({', '.join(given)})"

    def importance(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """What each entry of a tensor counts for when its channel is judged; None keeps the first channels.

        Args:
            model: The network.
        """
        return None

    def draw(self, context: SplitContext) -> Mask:
        """Follow the channels through the network and keep some of each layer's.

        Args:
            context: The network and how it is run.
        """
        # Imported here because splits that choose weights one by one have no use for channel flow.
        from lightning_ke.flow import decide_structure
        from lightning_ke.flow.dry import on_the_cpu
        from lightning_ke.splits.operations import structure_for

        model = context.model
        options: dict[str, Any] = {"round_to": self.round_to or 1, "importance": self.importance(model)}
        with _no_garbage_collection(), on_the_cpu():
            if self.rate is not None:
                structure = decide_structure(model, context.calls, self.rate, target=context.target, **options)
            else:
                assert self.ops is not None
                structure = structure_for(self.ops, context, **options)
        return Mask.from_structure(structure, {name: tuple(weight.shape) for name, weight in named_parameters(model)})


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for garbage meanwhile.

    Following channels makes thousands of small objects that live until its end; each of the full collections that they
    set off walks over all objects of the process, and together they take a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
