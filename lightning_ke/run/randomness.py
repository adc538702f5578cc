"""The random numbers of a run: what a checkpoint must hold of them, on every rank, and where it takes them up again."""

from __future__ import annotations

from collections.abc import Mapping
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
        self._states: list[dict[str, Any]] = []
        self._held: dict[str, Any] | None = None  # what a validation in progress began with
        self._validating = self._repeats_validation = False

    def begin_validation(self) -> None:
        """Note that a checkpoint which is written before this validation ends has to begin it again."""
        if self._repeats_validation:
            self.restore()
            self._repeats_validation = False
        self._held, self._validating = capture_rng(), True

    def end_validation(self) -> None:
        """Note that a checkpoint goes on behind the validation."""
        self._held, self._validating = None, False

    def gather(self) -> None:
        """Collect every rank's generators while all ranks are together: a checkpoint may be asked of one alone."""
        if self._world_size > 1:
            states: list[Any] = [None] * self._world_size
            torch.distributed.all_gather_object(states, capture_rng())
            self._states = states

    def restore(self) -> None:
        """Go on with this rank's random numbers of the checkpoint."""
        if self._rank < len(self._states):
            restore_rng(self._states[self._rank])

    def state_dict(self) -> dict[str, Any]:
        """The generators of all ranks, and whether a validation is in progress."""
        alone = self._world_size == 1
        return {
            "rng": [self._held or capture_rng()] if alone else list(self._states),
            "validating": self._validating,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The state.
        """
        self._states = list(state["rng"])
        self._repeats_validation = bool(state.get("validating"))
        if self._states and len(self._states) != self._world_size:
            rank_zero_info(
                f"KnowledgeEvolution: the checkpoint is of {len(self._states)} processes, this one of "
                f"{self._world_size}: weights, optimizer, schedule, mask, history and the values of later redraws are "
                "those of an uninterrupted run; the order of the data, augmentation and dropout are not."
            )
        self.restore()
