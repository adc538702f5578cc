"""Phases in which another step takes the place of the network's `training_step`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_ke.phases.base import Phase, Scene
from lightning_ke.structure import Structure

if TYPE_CHECKING:
    from lightning_ke.splits import Split


class OtherStep(Phase):
    """A phase that trains the slim network; subclasses say how (`step`).

    Needs a structured split such as `kels`. A network that takes its input shapes from the first batch trains that
    batch by its own step; `example_input` avoids it.

    Args:
        begin: As for every phase.
        end: As for every phase.
        first_generation: As for every phase.

    Raises:
        ValueError: If an argument is out of range, or (from the callback) the split keeps no whole channels.
    """

    def __init__(self, begin: float, end: float, first_generation: int) -> None:
        super().__init__(begin, end, first_generation)
        self._taken = False
        self._own: dict[str, Any] = {}

    @abstractmethod
    def step(self, model: nn.Module, structure: Structure) -> Callable[..., Any]:
        """Build what is called in the place of `training_step`.

        Args:
            model: The network, with its own `training_step`.
            structure: What its slim network is.
        """

    def check(self, split: Split) -> None:
        """Refuse a split without a slim network."""
        if not split.structured:
            raise ValueError(
                f"Expected a split that keeps whole channels, such as 'kels', for phase {self.name!r}, but got "
                f"{split.name!r}, whose fit hypothesis is no smaller network. Use a structured split, or leave the "
                "phase out."
            )

    def enter(self, scene: Scene) -> None:
        """Train by the other step from here on."""
        if scene.mask is not None:  # else `after_step` begins, when the first batch has shown what the network is like
            self.take_up(scene)

    def take_up(self, scene: Scene) -> None:
        """Train by the other step again."""
        self.release(scene.model)
        # An attribute of the instance hides the method of its class, for Lightning's strategies, too. There may be one
        # already: a compiled module has one.
        held = vars(scene.model)
        self._own = {"training_step": held["training_step"]} if "training_step" in held else {}
        held["training_step"] = self.step(scene.model, structure_of(scene))
        self._taken = True

    def after_step(self, scene: Scene) -> None:
        """Begin behind the first batch if the mask was not known before it."""
        if not self._taken:
            self.enter(scene)

    def leave(self, scene: Scene) -> None:
        """Train by the network's own step again."""
        self.release(scene.model)

    def release(self, model: nn.Module) -> None:
        """Give the network its own `training_step` back."""
        if self._taken:
            vars(model).pop("training_step", None)
            vars(model).update(self._own)
            self._taken, self._own = False, {}


def structure_of(scene: Scene) -> Structure:
    """What the slim network is.

    Args:
        scene: A scene of a phase that has refused splits without one, once the mask is drawn.
    """
    assert scene.mask is not None
    assert scene.mask.structure is not None, "`check` has refused every other split"
    return scene.mask.structure
