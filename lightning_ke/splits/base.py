"""What every split is: how its mask is drawn, and what a redraw leaves alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_ke.arguments import plain_values
from lightning_ke.masks import Mask
from lightning_ke.resets.base import Reset

#: What one optimizer step says of every entry of a weight: called with the weight and its gradient.
StepScore = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Call:
    """One way in which (a part of) the network is run.

    Args:
        module: Dotted canonical name of the module that is called; the empty string is the network itself.
        args: Positional arguments, batch dimension first where there is one.
        kwargs: Keyword arguments.
    """

    module: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitContext:
    """What a split may look at when it draws.

    Args:
        model: The network, unwrapped; a split never changes it.
        calls: How the network is run; several calls for a network whose parts are called one by one, empty if unknown.
        target: Canonical name of the submodule to which cutting and redrawing is limited, None for the whole network.
        seed: Seed of the whole run.
        generation: Number of the generation whose mask is drawn, from 1.
        scores: For a split with a `step_score` its sums over the optimizer steps of the last generation's last epoch,
            by canonical parameter name; None if no generation has been trained yet.
        activity: For a split that listens to the network how strong each channel was that a layer read in the last
            generation's last epoch, summed over its training batches, by canonical name of the layer's weight; empty if
            no generation has been trained yet, None outside of a training.
    """

    model: nn.Module
    calls: Sequence[Call]
    target: str | None
    seed: int
    generation: int = 1
    scores: Mapping[str, Tensor] | None = None
    activity: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class RedrawSet:
    """Weights that a redraw treats in one way.

    Args:
        survivors: What it leaves as it is; the complement is redrawn.
        reset: How the values are drawn; None is the run's own way.
    """

    survivors: Mask
    reset: Reset | None = None


class Split(ABC):
    """How a mask is drawn and what each generation redraws.

    A split says two things apart: *what is fit* (`draw`: fixed for the whole run unless `last_draw` says otherwise) and
    *what a redraw leaves alone* (`survivors`: by default all that is fit). Subclass it for a split of your own and give
    the object as `split`.

    Example:
        >>> import torch
        >>> from lightning_ke.splits import draw_mask
        >>> class Biases(Split):
        ...     name = "biases"
        ...
        ...     def draw(self, context):
        ...         parameters = context.model.named_parameters()
        ...         return Mask.from_tensors({n: torch.full(p.shape, n.endswith("bias")) for n, p in parameters})
        >>> print(draw_mask(nn.Linear(3, 2), split=Biases()))
        parameter  shape  fit
        weight     2x3    0.0 %
        bias       2      100.0 %
        total      8      25.0 %
    """

    #: Name in the registry.
    name: ClassVar[str]
    #: True if the fit hypothesis is a smaller network of its own (the mask has a `structure`).
    structured: bool = False
    #: True if drawing needs to know how the network is run.
    needs_calls: bool = False
    #: The last generation for which a new mask is drawn: 1 draws it once, before training; 2 once more, from weights
    #: that the first generation has trained (so the first mask is provisional); `math.inf` for every generation.
    last_draw: float = 1
    #: True if drawing looks at values of weights or gradients, of which each rank of a sharded network holds a part.
    reads_values: bool = False
    #: True if a redraw may leave alone what another generation's redraws, although the mask stays.
    survivors_vary: bool = False
    #: True if drawing needs to know how strong the network's channels are (`SplitContext.activity`).
    listens: bool = False
    #: True if it redraws what it finds wanting, which may be nothing; otherwise a mask that keeps all is an error.
    may_keep_all: bool = False

    @property
    def step_score(self) -> StepScore | None:
        """What is gathered from the training's own steps for `draw`, which then needs gradients; None gathers nothing.

        Without `SplitContext.scores`, `draw` reads the gradients that the parameters hold: in a training those of the
        very first step.
        """
        return None

    @abstractmethod
    def draw(self, context: SplitContext) -> Mask:
        """Draw the mask.

        Args:
            context: The network and how it is run.
        """

    def survivors(self, mask: Mask, context: SplitContext) -> Mask:
        """Return what the redraw that opens `context.generation` leaves as it is; the complement is redrawn.

        Args:
            mask: The mask of the split.
            context: The network; `context.generation` is the generation to be opened.
        """
        return mask

    def redraws(self, mask: Mask, context: SplitContext) -> Sequence[RedrawSet]:
        """Return what the redraw that opens `context.generation` does, one set after the other.

        By default there is one set, the complement of `survivors`. Override it if different weights are redrawn in
        different ways; what all sets leave alone must be `survivors`.

        Args:
            mask: As for `survivors`.
            context: As for `survivors`.
        """
        return (RedrawSet(self.survivors(mask, context)),)

    def identity(self) -> dict[str, Any]:
        """What must not change within a run, in plain types: the name and, by default, every plain argument."""
        return {"split": self.name, **plain_values(vars(self))}


def check_rate(rate: object, name: str = "rate", meaning: str = "the share of what is fit") -> float:
    """Check a split rate, or another share.

    Args:
        rate: The share.
        name: Name of the argument.
        meaning: What it is the share of, for the error message.

    Returns:
        The share as a float.

    Raises:
        ValueError: If it is no number in (0, 1).

    Example:
        >>> check_rate(1.5)
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `rate` to be in (0, 1), but got 1.5. It is the share of what is fit, such as 0.5.
    """
    # A bool is a Real to Python; the comparison is False for NaN.
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < float(rate) < 1:
        raise ValueError(f"Expected argument `{name}` to be in (0, 1), but got {rate!r}. It is {meaning}, such as 0.5.")
    return float(rate)
