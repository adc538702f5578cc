"""The random numbers of a run: what a checkpoint must hold of them, on every rank, and where it takes them up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_ke.rng import capture_rng, restore_rng


class RunRandomness:
    """The generators of all processes of a run.

    Args:
        world_size: Number of ranks.
        rank: Number of this rank.
    """

    def __init__(self, world_size: int, rank: int) -> None:
        self._world_size = world_size
        self._rank = rank
        #: Generators beside the global ones, of loaders.
        self.generators: Callable[[], Sequence[torch.Generator]] = tuple
        self._states: list[dict[str, Any]] = []
        self._held: dict[str, Any] | None = None  # what begins again in a run that goes on from a checkpoint
        self._validating = self._repeats_validation = False

    def hold(self) -> None:
        """Note that a checkpoint which is written before `release` goes on with what the generators are now."""
        self._held = self._capture()

    def release(self) -> None:
        """Note that what has been drawn since `hold` need not be drawn again."""
        self._held = None

    def _capture(self) -> dict[str, Any]:
        return {**capture_rng(), "loaders": [generator.get_state() for generator in self.generators()]}

    def begin_validation(self) -> None:
        """Note that a checkpoint which is written before this validation ends has to begin it again."""
        if self._repeats_validation:
            self.restore(self.generators())
            self._repeats_validation = False
        self._held, self._validating = self._capture(), True

    def end_validation(self) -> None:
        """Note that a checkpoint goes on behind the validation."""
        self._held, self._validating = None, False

    def gather(self) -> None:
        """Collect every rank's generators while all ranks are together: a checkpoint may be asked of one alone."""
        if self._world_size > 1:
            states: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(states, self._capture())
            self._states = states

    def restore(self, generators: Sequence[torch.Generator] = ()) -> None:
        """Go on with this rank's random numbers of the checkpoint.

        Args:
            generators: Those of the loaders to take up, too.
        """
        if self._rank < len(self._states):
            state = self._states[self._rank]
            restore_rng(state)
            for generator, saved in zip(generators, state.get("loaders", ()), strict=False):
                generator.set_state(saved)

    def state_dict(self) -> dict[str, Any]:
        """The generators of all ranks, and whether a validation is in progress."""
        alone = self._world_size == 1
        return {
            "rng": [self._held or self._capture()] if alone else list(self._states),
            "validating": self._validating,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The state.
        """
        self._states = list(state["rng"])
        self._held = self._states[self._rank] if self._rank < len(self._states) else None
        self._repeats_validation = bool(state.get("validating"))
        if self._states and len(self._states) != self._world_size:
            rank_zero_info(
                f"KnowledgeEvolution: the checkpoint is of {len(self._states)} processes, this one of "
                f"{self._world_size}: weights, optimizer, schedule, mask, history and the values of later redraws are "
                "those of an uninterrupted run; the order of the data, augmentation and dropout are not."
            )
        self.restore()
