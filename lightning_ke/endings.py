"""What ends a generation: one policy with one method."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_ke.arguments import as_number, check_choice, check_name, check_named, plain_values, whole
from lightning_ke.generations import Plan, plan_generations, plan_lengths
from lightning_ke.goals import logged


class GenerationEnd(ABC):
    """The policy that ends a generation: one method, asked once at the end of every epoch.

    In a run on several devices the first rank's answer holds for all.
    """

    #: Why the generation ended, in its record.
    reason: ClassVar[str]

    @abstractmethod
    def horizon(self, generation: int) -> int:
        """Epochs for which a learning-rate schedule of one generation is built: the most that it may last.

        Args:
            generation: Number of the generation, from 1.
        """

    @abstractmethod
    def ends(self, generation: int, epochs: int, metrics: Mapping[str, float]) -> bool:
        """Say whether the generation ends with this epoch.

        Args:
            generation: Number of the generation, from 1.
            epochs: Epochs that it has been trained for, this one included.
            metrics: All that the generation has logged, as in the Trainer's `callback_metrics`; what a validation of an
                earlier generation has said is not among it.
        """

    def identity(self) -> dict[str, Any]:
        """What must not change within a run, in plain types: the reason and every plain argument."""
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {"end": self.reason, **plain_values(own)}

    def state_dict(self) -> dict[str, Any]:
        """What the policy must remember across a resume, in plain types."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Args:
            state: The remembered state.
        """


class FixedLength(GenerationEnd):
    """Ends a generation after a number of epochs that is known beforehand.

    Args:
        epochs: Epochs of each generation: one number for all, or one for each (the last holds for any further).

    Raises:
        ValueError: If a length is no whole number of at least 1.

    Example:
        >>> policy = FixedLength((3, 1))
        >>> policy.ends(1, 2, {}), policy.ends(1, 3, {}), policy.ends(2, 1, {})
        (False, True, True)
    """

    reason: ClassVar[str] = "length"

    def __init__(self, epochs: int | Sequence[int]) -> None:
        lengths = (epochs,) if isinstance(epochs, int) or not isinstance(epochs, Sequence) else tuple(epochs)
        self.epochs = tuple(whole("epochs", length, least=1) for length in lengths or (None,))

    def horizon(self, generation: int) -> int:
        """The length of the generation."""
        return self.epochs[min(generation, len(self.epochs)) - 1]

    def ends(self, generation: int, epochs: int, metrics: Mapping[str, float]) -> bool:
        """Say whether its epochs are over."""
        return epochs >= self.horizon(generation)


class _Watching(GenerationEnd):
    """Ends a generation by what the validation says, within a least and a greatest length."""

    def __init__(self, monitor: str, patience: int, least: int, most: int) -> None:
        check_name("monitor", monitor)
        self.monitor = monitor
        self.patience = whole("patience", patience, least=1)
        self.least = whole("least", least, least=1)
        self.most = whole("most", most, least=self.least)
        self._generation = 0
        self._best = math.inf
        self._waited = 0

    def horizon(self, generation: int) -> int:
        """The greatest length of a generation."""
        return self.most

    def ends(self, generation: int, epochs: int, metrics: Mapping[str, float]) -> bool:
        """Say whether the patience is over, or the greatest length reached."""
        if generation != self._generation:
            self._generation = generation
            self._begin()
        if epochs >= self.least or self.monitor in metrics:  # the first validation may come after some epochs
            self._look(metrics)
        return epochs >= self.most or (epochs >= self.least and self._waited >= self.patience)

    def _begin(self) -> None:
        self._best, self._waited = math.inf, 0

    @abstractmethod
    def _look(self, metrics: Mapping[str, float]) -> None:
        """Count an epoch that speaks for the end."""

    def state_dict(self) -> dict[str, Any]:
        """Best value and patience of the generation in progress."""
        return {"generation": self._generation, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._generation, self._best, self._waited = state["generation"], state["best"], state["waited"]


class Plateau(_Watching):
    """Ends a generation when a metric has stopped getting better.

    Args:
        monitor: Name of the metric, as it is logged.
        mode: "min" if less of it is better, "max" if more.
        patience: Epochs without a new best value after which the generation ends.
        least: Epochs that a generation lasts at least.
        most: Epochs that it lasts at most; the horizon of its learning-rate schedule.
        min_delta: What counts as better at least.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If a metric is not named by a string.

    Example:
        >>> policy = Plateau("val_loss", patience=2, least=1, most=10)
        >>> losses = enumerate([2.0, 1.0, 1.1, 1.2], start=1)
        >>> print(*(policy.ends(1, epoch, {"val_loss": loss}) for epoch, loss in losses))
        False False False True
    """

    reason: ClassVar[str] = "plateau"

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 5,
        least: int = 5,
        most: int = 200,
        min_delta: float = 0.0,
    ) -> None:
        check_choice("mode", mode, ("min", "max"))
        super().__init__(monitor, patience, least, most)
        self.mode = mode
        if not 0 <= as_number(min_delta) < math.inf:
            raise ValueError(f"Expected argument `min_delta` to be a number of at least 0, but got {min_delta!r}.")
        self.min_delta = float(min_delta)

    def _look(self, metrics: Mapping[str, float]) -> None:
        value = logged(metrics, self.monitor) * (1 if self.mode == "min" else -1)
        if value < self._best - self.min_delta:
            self._best, self._waited = value, 0
        else:
            self._waited += 1


class Overfit(_Watching):
    """Ends a generation when it overfits: the validation loss rises while the training loss still falls.

    Args:
        monitor: Name of the validation loss, as it is logged.
        train_monitor: Name of the training loss, as it is logged; its value per epoch.
        patience: Epochs in a row that overfit, after which the generation ends.
        least: Epochs that a generation lasts at least.
        most: Epochs that it lasts at most; the horizon of its learning-rate schedule.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If a metric is not named by a string.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021): the premise that a generation overfits a small data set.

    Example:
        >>> policy = Overfit(patience=2, least=1, most=10)
        >>> losses = [(2.0, 2.1), (1.5, 1.8), (1.2, 1.9), (1.0, 2.0)]
        >>> logged = [{"train_loss": train, "val_loss": val} for train, val in losses]
        >>> print(*(policy.ends(1, epoch, metrics) for epoch, metrics in enumerate(logged, start=1)))
        False False False True
    """

    reason: ClassVar[str] = "overfit"

    def __init__(
        self,
        monitor: str = "val_loss",
        train_monitor: str = "train_loss",
        patience: int = 3,
        least: int = 5,
        most: int = 200,
    ) -> None:
        super().__init__(monitor, patience, least, most)
        check_name("train_monitor", train_monitor)
        self.train_monitor = train_monitor
        self._train_at_best = math.inf

    def _begin(self) -> None:
        super()._begin()
        self._train_at_best = math.inf

    def _look(self, metrics: Mapping[str, float]) -> None:
        value, train = logged(metrics, self.monitor), logged(metrics, self.train_monitor)
        if value < self._best:
            self._best, self._train_at_best, self._waited = value, train, 0
        elif train < self._train_at_best:
            self._waited += 1
        else:
            self._waited = 0  # both are worse: that is noise or too high a learning rate, not overfitting

    def state_dict(self) -> dict[str, Any]:
        """Best validation loss, the training loss beside it, and the patience."""
        return {**super().state_dict(), "train_at_best": self._train_at_best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        super().load_state_dict(state)
        self._train_at_best = state["train_at_best"]


def get_ending(end: str | GenerationEnd) -> GenerationEnd | None:
    """Build the policy of a name.

    Args:
        end: "length", "plateau", "overfit", or a policy, which is returned as it is.

    Returns:
        The policy; None for "length", whose epochs follow from the length of the run.

    Raises:
        ValueError: If there is no such policy, or if one of one's own gives no reason or no length.

    Example:
        >>> get_ending("plateau").monitor
        'val_loss'
    """
    if isinstance(end, GenerationEnd):
        check_named("end", end, "reason")
        whole("end.horizon(1)", end.horizon(1), least=1)
        return end
    check_choice("end", end, ("length", "plateau", "overfit"))
    if end == "length":
        return None
    return Plateau() if end == "plateau" else Overfit()


def plan_run(
    end: GenerationEnd | None,
    generations: int | None,
    epochs: int | Sequence[float] | None,
    max_epochs: int,
    fast_dev_run: bool = False,
    min_epochs: int | None = None,
) -> tuple[GenerationEnd, Plan | None]:
    """Decide what ends each generation of a run, and how many there are.

    Args:
        end: What `get_ending` returned.
        generations: Number of generations, or None.
        epochs: Epochs of each generation, a list of them or of shares of the run, or None.
        max_epochs: The Trainer's number of epochs, -1 for a run that something else ends.
        fast_dev_run: True for a run of a few batches, in which no generation ends and there is no plan.
        min_epochs: The Trainer's least number of epochs.

    Raises:
        ValueError: If they contradict each other.

    Example:
        >>> policy, plan = plan_run(None, 3, None, 30)
        >>> policy.epochs, plan
        ((10,), Plan(generations=3, epochs=10))
    """
    if fast_dev_run:
        return FixedLength(max_epochs + 1), None
    if end is not None:
        if epochs is not None:
            raise ValueError(
                f"Expected argument `epochs_per_generation` to be None for generations that end by {end.reason}, but "
                f"got {epochs!r}. Give the policy their least and greatest length."
            )
        if 0 < max_epochs < end.horizon(1):
            rank_zero_warn(
                f"KnowledgeEvolution: a generation that ends by {end.reason} may last {end.horizon(1)} epochs, for "
                f"which schedules are built, but the run has {max_epochs}. Let `most` of the policy be less, or the "
                "`horizon` of one of your own."
            )
        return copy.deepcopy(end), Plan(generations, None)  # what it remembers is of this run alone
    if epochs is None or isinstance(epochs, int):
        plan = plan_generations(generations, epochs, max_epochs)
    else:
        plan = plan_lengths(epochs, generations, max_epochs)
    assert plan.epochs is not None
    if plan.generations is not None and max_epochs == -1:
        length = sum(plan.epochs) if isinstance(plan.epochs, tuple) else plan.generations * plan.epochs
        if (min_epochs or 0) > length:
            raise ValueError(
                f"Expected `min_epochs` to be at most {length}, after which the last generation ends the run, but got "
                f"`min_epochs={min_epochs}`. Leave it out, or ask for longer or more generations."
            )
    return FixedLength(plan.epochs), plan
