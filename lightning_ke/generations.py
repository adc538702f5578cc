"""How a run is divided into generations, and where in it we are: bookkeeping that knows neither network nor Trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

#: Number of generations where neither the callback nor the Trainer's length says otherwise.
DEFAULT_GENERATIONS = 10


@dataclass(frozen=True)
class Plan:
    """How a run is divided into generations.

    Args:
        generations: Number of generations, None for as many as fit into a run without a fixed number of epochs.
        epochs: Epochs of each generation; a tuple where they differ, None where only the training shows them.
    """

    generations: int | None
    epochs: int | tuple[int, ...] | None


def plan_lengths(lengths: Sequence[object], generations: int | None, max_epochs: int) -> Plan:
    """Divide a run into generations of different lengths.

    Args:
        lengths: Epochs of each generation as whole numbers, or each one's share of the run as fractions that sum to 1.
        generations: Number of generations, or None; it is that of the lengths.
        max_epochs: The Trainer's number of epochs, -1 for a run that the last generation ends.

    Raises:
        ValueError: If they contradict each other; the message names the number to write.

    Example:
        >>> plan_lengths([100, 60, 40], None, 200)
        Plan(generations=3, epochs=(100, 60, 40))
        >>> plan_lengths([0.5, 0.25, 0.15, 0.10], None, 40)
        Plan(generations=4, epochs=(20, 10, 6, 4))
    """
    if generations is not None and generations != len(lengths):
        raise ValueError(
            f"Expected argument `generations` to be the number of lengths in `epochs_per_generation`, {len(lengths)}, "
            f"but got {generations}. Leave `generations` out."
        )
    epochs = tuple(int(length) for length in lengths if not isinstance(length, bool) and isinstance(length, Integral))
    if len(epochs) == len(lengths) and min(epochs, default=0) >= 1:
        if max_epochs not in (-1, sum(epochs)):
            raise ValueError(
                f"Expected `max_epochs` to be the sum of `epochs_per_generation`, {sum(epochs)}, but got "
                f"`max_epochs={max_epochs}`. Write `max_epochs={sum(epochs)}`."
            )
        return Plan(len(epochs), epochs)
    shares = [share for share in lengths if isinstance(share, float) and 0 < share < 1]
    if len(shares) < len(lengths) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            "Expected argument `epochs_per_generation` to hold whole numbers of at least 1, or fractions in (0, 1) "
            f"that sum to 1, but got {list(lengths)}."
        )
    if max_epochs == -1:
        raise ValueError(
            "Expected the Trainer to have `max_epochs`, of which `epochs_per_generation` gives the shares, but it is "
            "-1. Give whole numbers of epochs, or `max_epochs`."
        )
    # Rounding the ends, not the lengths, lets them sum to the whole.
    ends = [round(max_epochs * sum(shares[: count + 1])) for count in range(len(shares))]
    epochs = tuple(end - start for start, end in zip([0, *ends], ends, strict=False))
    if min(epochs) < 1:
        raise ValueError(
            f"Expected `max_epochs` to leave every generation an epoch, but the shares {shares} of "
            f"`max_epochs={max_epochs}` are {list(epochs)}. Write at least `max_epochs={math.ceil(1 / min(shares))}`."
        )
    return Plan(len(epochs), epochs)


def plan_generations(generations: int | None, epochs_per_generation: int | None, max_epochs: int) -> Plan:
    """Complete the length of a run: any two of the three numbers give the third.

    Args:
        generations: Number of generations, or None.
        epochs_per_generation: Epochs of each generation, or None.
        max_epochs: The Trainer's number of epochs, -1 for a run that something else ends.

    Raises:
        ValueError: If the three contradict each other or too few are known; the message names the number to write.

    Example:
        >>> plan_generations(None, None, 2000)
        Plan(generations=10, epochs=200)
        >>> plan_generations(None, 40, 200)
        Plan(generations=5, epochs=40)
        >>> plan_generations(3, None, 100)
        Traceback (most recent call last):
        ...
        ValueError: Expected `max_epochs` to be a multiple of `generations=3`, but got `max_epochs=100`. Write \
`max_epochs=99` or `max_epochs=102`.
    """
    if epochs_per_generation is None:
        if max_epochs == -1:
            raise ValueError(
                "Expected argument `epochs_per_generation` to be given because the Trainer has no `max_epochs` "
                "(it is -1), but got None. Write `KnowledgeEvolution(epochs_per_generation=...)`."
            )
        count = DEFAULT_GENERATIONS if generations is None else generations
        default = " (the default)" if generations is None else ""
        if max_epochs < count:
            raise ValueError(
                f"Expected `max_epochs` to leave at least one epoch for each of {count} generations{default}, but got "
                f"`max_epochs={max_epochs}`. Write `max_epochs={count}` or more"
                f"{f', or `generations={max_epochs}` or fewer' if max_epochs > 0 else ''}."
            )
        if max_epochs % count:
            below = max_epochs - max_epochs % count
            raise ValueError(
                f"Expected `max_epochs` to be a multiple of `generations={count}`{default}, but got "
                f"`max_epochs={max_epochs}`. Write `max_epochs={below}` or `max_epochs={below + count}`."
            )
        return Plan(count, max_epochs // count)
    if max_epochs == -1:
        return Plan(generations, epochs_per_generation)
    if generations is not None:
        length = generations * epochs_per_generation
        if length != max_epochs:
            raise ValueError(
                f"Expected `max_epochs` to be generations x epochs_per_generation = {generations} x "
                f"{epochs_per_generation} = {length}, but got `max_epochs={max_epochs}`. "
                f"Write `max_epochs={length}`, or leave out one of the two arguments."
            )
        return Plan(generations, epochs_per_generation)
    if max_epochs % epochs_per_generation:
        below = max_epochs - max_epochs % epochs_per_generation
        choices = " or ".join(f"`max_epochs={n}`" for n in (below, below + epochs_per_generation) if n)
        raise ValueError(
            f"Expected `max_epochs` to be a multiple of `epochs_per_generation={epochs_per_generation}`, but got "
            f"`max_epochs={max_epochs}`. Write {choices}."
        )
    return Plan(max_epochs // epochs_per_generation, epochs_per_generation)


@dataclass
class Clock:
    """Where in the run we are.

    A generation is *closed* at the end of its last epoch (no weight changes); the redraw that *opens* the next one is
    due when another epoch begins. Nothing is due after the last closed generation of a finished run, so that a longer
    run may take it up from there.

    Args:
        generation: Number of the generation in progress or just closed, from 1.
        closed: Number of the last closed generation, 0 before the first is closed.
        epochs: Epochs that the generation has been trained for.
        first_epoch: The Trainer's epoch in which the generation began.
        first_step: The Trainer's global step at which the generation began.
        seconds: Wall-clock seconds that the generation took before the last resume.
    """

    generation: int = 1
    closed: int = 0
    epochs: int = 0
    first_epoch: int = 0
    first_step: int = 0
    seconds: float = 0.0
    _since: float | None = field(default=None, repr=False, compare=False)

    @property
    def redraw_is_due(self) -> bool:
        """True if the generation is closed, so that the next epoch belongs to the next generation."""
        return self.closed >= self.generation

    def start(self) -> None:
        """Let the wall clock run."""
        self._since = time.monotonic()

    def elapsed(self) -> float:
        """Wall-clock seconds that the generation has taken so far."""
        return self.seconds + (0.0 if self._since is None else time.monotonic() - self._since)

    def open_next(self, epoch: int, step: int) -> None:
        """Begin the next generation.

        Args:
            epoch: The Trainer's current epoch.
            step: The Trainer's global step.
        """
        self.generation = self.closed + 1
        self.epochs, self.first_epoch, self.first_step, self.seconds = 0, epoch, step, 0.0
        self.start()

    def state_dict(self) -> dict[str, Any]:
        """The clock in plain types."""
        return {
            "generation": self.generation,
            "closed": self.closed,
            "epochs": self.epochs,
            "first_epoch": self.first_epoch,
            "first_step": self.first_step,
            "seconds": self.elapsed(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Clock:
        """Rebuild the clock from `state_dict`.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If no run can have left it.
        """
        clock = cls(**state)
        if not (0 <= clock.closed <= clock.generation <= clock.closed + 1 and clock.generation > 0 <= clock.epochs):
            raise ValueError(f"Expected the clock of a run of generations, but got {dict(state)}.")
        return clock
