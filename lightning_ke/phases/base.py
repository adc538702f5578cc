"""What every phase is: when it holds, and what it does to weights and gradients while it does."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_ke.arguments import as_number, plain_values, whole
from lightning_ke.masks import Mask
from lightning_ke.naming import is_below
from lightning_ke.optimizer_state import clear_entries
from lightning_ke.units import units

if TYPE_CHECKING:
    from lightning_ke.splits import Split


@dataclass(frozen=True)
class Scene:
    """What a phase acts on.

    Args:
        model: The network.
        optimizers: Its optimizers.
        survivors: What the redraw that opened the generation left alone; None in the first generation, and in one that
            a resumed run goes on with.
        target: Canonical name of the submodule to which cutting and redrawing is limited, None for all.
        generation: Number of the generation.
        mask: What is fit; None until it is drawn, which in the first generation may need a batch.
        redrawable: From a mask to the names of the parameters of which the run's redraw would change something.
        redraw: Draws what a mask does not keep as the run does.
        stepping: The one of the optimizers that is about to take a step (`Phase.before_step`), else None.
    """

    model: nn.Module
    optimizers: Sequence[Optimizer]
    survivors: Mask | None
    target: str | None
    generation: int
    mask: Mask | None = None
    redrawable: Callable[[Mask], Collection[str]] = tuple
    redraw: Callable[[Mask], None] = lambda _: None
    stepping: Optimizer | None = None

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The weights of all layers within the target by canonical name; no biases, no norms."""
        for unit in units(self.model):
            if is_below(unit.name, self.target):
                for local, parameter in unit.weights.items():
                    yield unit.canonical(local), parameter

    def forget(self, parameter: nn.Parameter, where: Tensor) -> None:
        """Let the optimizers' state of some entries start over.

        Args:
            parameter: A parameter.
            where: Bool tensor of its shape, True for the entries.
        """
        for optimizer in self.optimizers:
            if parameter in optimizer.state:
                clear_entries(optimizer, parameter, where)


class Phase(ABC):
    """A part of each generation in which training is different.

    Every method may be left out. Weights and gradients are changed in place, under ``torch.no_grad()``.

    Args:
        begin: Where in a generation it begins, as a share of the generation's epochs in [0, 1).
        end: Where it ends, in (0, 1].
        first_generation: First generation in which it holds.

    Raises:
        ValueError: If they are out of range.
    """

    #: Name in messages and state.
    name: ClassVar[str]
    #: True if the redraw of a generation is left to this phase, which asks for it (`Scene.redraw`) when it is over.
    postpones_redraw: ClassVar[bool] = False
    #: True if it lets the optimizers' state of single weights start over (`Scene.forget`), which not every optimizer's
    #: can: one that cannot is refused behind the first step.
    forgets: ClassVar[bool] = False

    def __init__(self, begin: float = 0.0, end: float = 1.0, first_generation: int = 1) -> None:
        if not 0 <= as_number(begin) < as_number(end) <= 1:
            raise ValueError(
                f"Expected `begin` and `end` of phase {self.name!r} to be shares of a generation with "
                f"0 <= begin < end <= 1, but got {begin!r} and {end!r}. Give 0 and 0.25 for its first quarter."
            )
        self.begin, self.end = float(begin), float(end)
        self.first_generation = whole("first_generation", first_generation, least=1)

    def holds(self, generation: int, epoch: int, horizon: int) -> bool:
        """Whether it holds in an epoch.

        Args:
            generation: Number of the generation, from 1.
            epoch: Number of the epoch within the generation, from 0.
            horizon: Epochs of the generation, or the most that it may last.
        """
        # 0.55 * 100 is a little more than 55 in binary, and no phase lasts an epoch longer for that.
        begin, end = (round(share * horizon, 6) for share in (self.begin, self.end))
        return generation >= self.first_generation and begin <= epoch < end

    def check(self, split: Split) -> None:
        """Refuse a split with which the phase makes no sense, by a `ValueError`.

        Args:
            split: The run's split.
        """

    def remember(self, model: nn.Module) -> None:
        """Look at the network before it is trained.

        Args:
            model: The network with its first values.
        """

    def enter(self, scene: Scene) -> None:
        """Change the network when the phase begins, behind a redraw.

        Args:
            scene: What it acts on.
        """

    def take_up(self, scene: Scene) -> None:
        """Go on in a resumed training in which the phase holds; the weights are those of the checkpoint.

        Args:
            scene: What it acts on.
        """

    def before_step(self, scene: Scene) -> None:
        """Change the gradients before they are used; several optimizers are announced one by one.

        Args:
            scene: What it acts on; `scene.stepping` is the optimizer that is about to use its gradients.
        """

    def after_step(self, scene: Scene) -> None:
        """Put back what a step must not have changed.

        Args:
            scene: What it acts on.
        """

    def leave(self, scene: Scene) -> None:
        """Change the network when the phase is over, in front of a redraw.

        Args:
            scene: What it acts on.
        """

    def release(self, model: nn.Module) -> None:
        """Let go of the network when training stops, be it in the middle of the phase; changes no weight.

        Args:
            model: The network.
        """

    def identity(self) -> dict[str, Any]:
        """What must not change within a run, in plain types."""
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"phase": self.name, **plain_values(own)}

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume, in plain, weights-only types."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The state.
        """


def zero(parameter: nn.Parameter, where: Tensor) -> None:
    """Set some entries of a parameter to zero.

    Args:
        parameter: The parameter.
        where: Bool tensor of its shape.
    """
    with torch.no_grad():
        parameter.masked_fill_(where, 0)


def zero_gradient(parameter: nn.Parameter, where: Tensor) -> None:
    """Give some entries of a parameter a gradient of zero, so that no momentum gathers.

    Args:
        parameter: The parameter; its gradient may be sparse, as that of an embedding, or missing.
        where: Bool tensor of its shape.
    """
    if parameter.grad is None:
        return
    if parameter.grad.is_sparse:
        parameter.grad = parameter.grad.coalesce()
        rows = parameter.grad.indices()[0]
        parameter.grad.values().masked_fill_(where[rows], 0)
    else:
        parameter.grad.masked_fill_(where, 0)
