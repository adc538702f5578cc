"""A phase of gradient ascent in some layers (SEAL)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from torch import Tensor, nn, optim

from lightning_ke.arguments import as_number, check_patterns
from lightning_ke.naming import did_you_mean, named_parameters
from lightning_ke.optimizer_state import start_over
from lightning_ke.phases.base import Phase, Scene

# Optimizers that add the decay to the gradient, unless a parameter group says `decoupled_weight_decay`.
_COUPLED = (
    optim.SGD,
    optim.Adam,
    optim.Adagrad,
    optim.Adadelta,
    optim.Adamax,
    optim.ASGD,
    optim.NAdam,
    optim.RAdam,
    optim.RMSprop,
)


class Ascent(Phase):
    """Let some layers climb the loss, slowly and without weight decay, while the others descend.

    Behind the phase the optimizers begin anew. The authors train the first generation without it
    (``first_generation=2``).

    Args:
        layers: Patterns (as for `fnmatch`) of the canonical names of the parameters that climb, such as "layer1.*".
        scale: Factor of their steps, that is of their learning rate.
        begin: As for every phase.
        end: As for every phase.
        first_generation: As for every phase.

    Raises:
        TypeError: If `layers` is a lone string.
        ValueError: If an argument is out of range; from the first step if a pattern matches no parameter, or the
            optimizer decays weights on its own (AdamW, Muon), where the decay cannot be taken out of the gradient, or
            is LBFGS.

    Source:
        "Simulated Annealing in Early Layers Leads to Better Generalization" (CVPR 2023).

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> for layer in net:
        ...     _ = nn.init.ones_(layer.weight)
        ...     layer.weight.grad = torch.ones(1, 1)
        >>> optimizer, phase = torch.optim.SGD(net.parameters(), lr=0.1), Ascent(["0.*"])
        >>> scene = Scene(net, [optimizer], None, None, generation=1)
        >>> with torch.no_grad():
        ...     phase.before_step(scene)
        ...     optimizer.step()
        ...     phase.after_step(scene)
        >>> print(*(round(layer.weight.item(), 3) for layer in net))
        1.001 0.9
    """

    name: ClassVar[str] = "ascent"

    def __init__(
        self,
        layers: Sequence[str],
        scale: float = 0.01,
        begin: float = 0.0,
        end: float = 0.25,
        first_generation: int = 1,
    ) -> None:
        super().__init__(begin, end, first_generation)
        check_patterns("layers", layers)
        if not 0 < as_number(scale) < math.inf:
            raise ValueError(
                f"Expected argument `scale` to be a number greater than 0, but got {scale!r}. The paper uses 0.01."
            )
        self.layers = tuple(layers)
        self.scale = float(scale)
        self._before: list[tuple[nn.Parameter, Tensor]] = []  # climbing weights as they were before a step

    def enter(self, scene: Scene) -> None:
        """Refuse what cannot climb before the first step."""
        names = [name for name, _ in named_parameters(scene.model)]
        for pattern in self.layers:
            if not any(fnmatchcase(name, pattern) for name in names):
                some = f"Some of them are {', '.join(map(repr, names[:3]))}."
                raise ValueError(
                    f"Expected every pattern in argument `layers` of phase 'ascent' to match a parameter, but "
                    f"{pattern!r} matches none. {did_you_mean(pattern, names, some)}"
                )
        for optimizer in scene.optimizers:
            if isinstance(optimizer, optim.LBFGS):
                raise ValueError(
                    "Expected an optimizer that takes its step at once for phase 'ascent', but LBFGS looks several "
                    "times where it leads. Use SGD, say."
                )
            decaying = [group for group in optimizer.param_groups if group.get("weight_decay", 0)]
            coupled = isinstance(optimizer, _COUPLED) and not any(g.get("decoupled_weight_decay") for g in decaying)
            if decaying and not coupled:
                raise ValueError(
                    f"Expected an optimizer whose weight decay is part of the gradient for phase 'ascent', but "
                    f"{type(optimizer).__name__} decays weights on its own, or is not known not to. Use SGD, or "
                    "`weight_decay=0`."
                )

    def before_step(self, scene: Scene) -> None:
        """Turn the gradients of the climbing layers round, and take out what weight decay will add."""
        self.after_step(scene)  # of a step before it in the same batch
        # Of several optimizers one alone is about to step; another one's gradients are turned round before its own.
        stepping = scene.optimizers if scene.stepping is None else [scene.stepping]
        decay = {
            id(parameter): float(group.get("weight_decay", 0))
            for optimizer in stepping
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for name, parameter in named_parameters(scene.model):
            if parameter.grad is None or id(parameter) not in decay:
                continue
            if any(fnmatchcase(name, pattern) for pattern in self.layers):
                parameter.grad.neg_()
                if decay[id(parameter)]:  # no optimizer decays what has sparse gradients
                    parameter.grad.sub_(parameter.detach(), alpha=decay[id(parameter)])
                self._before.append((parameter, parameter.detach().clone()))

    def after_step(self, scene: Scene) -> None:
        """Take back all but a small part of the step: a smaller gradient would be none to Adam and its like."""
        for parameter, before in self._before:
            parameter.copy_(before.lerp_(parameter.detach(), self.scale))
        self._before = []

    def leave(self, scene: Scene) -> None:
        """Let every optimizer begin anew."""
        for optimizer in scene.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    start_over(optimizer, parameter)

    def identity(self) -> dict[str, Any]:
        """Its arguments."""
        return {**super().identity(), "layers": list(self.layers)}
