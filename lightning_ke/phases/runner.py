"""Which phases hold now: entered and left at the beginnings of epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lightning_ke.phases.base import Phase, Scene


class PhaseRunner:
    """The phases of a run.

    Args:
        phases: In the order in which they act.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phases)
        self._held = [False] * len(self.phases)
        self._told = True

    def __bool__(self) -> bool:
        return bool(self.phases)

    @property
    def held(self) -> list[str]:
        """Names of the phases that hold now."""
        return [phase.name for phase in self._now()]

    def _now(self) -> list[Phase]:
        return [phase for phase, held in zip(self.phases, self._held, strict=True) if held]

    def postpone(self, generation: int) -> bool:
        """Whether a phase redraws in the run's place.

        Args:
            generation: Number of the generation that opens.
        """
        return any(phase.postpones_redraw and generation >= phase.first_generation for phase in self.phases)

    def remember(self, model: nn.Module) -> None:
        """Show every phase the network before it is trained."""
        for phase in self.phases:
            phase.remember(model)

    @torch.no_grad()
    def take_up(self, scene: Scene) -> None:
        """Let the phases that hold go on in a resumed training.

        Args:
            scene: What they act on.
        """
        for phase in self._now():
            phase.take_up(scene)

    def release(self, model: nn.Module) -> None:
        """Let every phase go of the network when training stops.

        Args:
            model: The network.
        """
        for phase in self.phases:
            phase.release(model)

    @torch.no_grad()
    def begin_epoch(self, scene: Scene, epoch: int, horizon: int) -> None:
        """Leave and enter phases.

        Args:
            scene: What they act on.
            epoch: Number of the epoch within the generation, from 0.
            horizon: Epochs of the generation.
        """
        due = [phase.holds(scene.generation, epoch, horizon) for phase in self.phases]
        changes = list(zip(self.phases, self._held, due, strict=True))
        for phase, held, holds in changes:
            if held and not holds:
                phase.leave(scene)
        for phase, held, holds in changes:
            if holds and not held:
                phase.enter(scene)
        self._held, self._told = due, False

    @torch.no_grad()
    def end_generation(self, scene: Scene) -> None:
        """Leave all phases, so that the next generation enters its own.

        Args:
            scene: What they act on.
        """
        for phase in self._now():
            phase.leave(scene)
        self._held = [False] * len(self.phases)

    @torch.no_grad()
    def before_step(self, scene: Scene) -> None:
        """Let the phases that hold change the gradients."""
        self._told = True
        for phase in self._now():
            phase.before_step(scene)

    @property
    def untold(self) -> list[str]:
        """Names of the phases that wait for the steps of this epoch's optimizers, if none has been announced."""
        waiting = [phase.name for phase in self._now() if type(phase).before_step is not Phase.before_step]
        return [] if self._told else waiting

    @torch.no_grad()
    def after_step(self, scene: Scene) -> None:
        """Let the phases that hold put weights back."""
        for phase in self._now():
            phase.after_step(scene)

    def state_dict(self) -> dict[str, Any]:
        """Which phases hold, and what they must remember."""
        return {"held": list(self._held), "phases": [phase.state_dict() for phase in self.phases]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._held = list(state["held"])
        for phase, of_phase in zip(self.phases, state["phases"], strict=True):
            phase.load_state_dict(of_phase)
