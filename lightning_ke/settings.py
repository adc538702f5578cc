"""What a user asked for, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_ke.arguments import check_choice, check_named, check_patterns
from lightning_ke.goals import check_goals
from lightning_ke.phases import Phase
from lightning_ke.resets import Reset, get_reset
from lightning_ke.schedule import GenerationSchedule, RateByGeneration, get_schedule
from lightning_ke.splits import Split, get_split


@dataclass(frozen=True)
class Settings:
    """What every generation of a run has in common (arguments of `KnowledgeEvolution`).

    Args:
        split: Which weights are fit, and which of the others a generation redraws.
        reset: How redrawn values are drawn.
        norm: What a redraw does to norm layers.
        optimizer: What becomes of the optimizer's state.
        lr_schedule: Whether the schedule starts over.
        target: Canonical name of the submodule to which cutting and redrawing is limited.
        exclude: Patterns of parameters that are never redrawn.
        stop_at: Metrics that end the whole run.
        schedule: What changes from generation to generation.
        phases: Parts of each generation in which training is different.
    """

    split: Split
    reset: Reset
    norm: Literal["keep", "reset"]
    optimizer: Literal["new", "keep", "clear"]
    lr_schedule: Literal["restart", "continue"]
    target: str | None
    exclude: tuple[str, ...]
    stop_at: Mapping[str, float | str]
    schedule: GenerationSchedule | None = None
    phases: tuple[Phase, ...] = ()

    @classmethod
    def of(
        cls,
        split: str | Split,
        rate: float | None,
        ops: float | None,
        reset: str | Reset,
        *,
        schedule: GenerationSchedule | Mapping[str, Sequence[float]] | None,
        stop_at: Mapping[str, float | str] | None,
        exclude: Sequence[str],
        phases: Sequence[Phase] | None,
        **choices: Any,
    ) -> Settings:
        """Check arguments of `KnowledgeEvolution` and build what they name.

        Args:
            split: As for `KnowledgeEvolution`, like all the others.
            rate: The split's.
            ops: The split's.
            reset: A name or an object.
            schedule: An object, or a dict of its arguments.
            stop_at: Goals by metric.
            exclude: Patterns.
            phases: Objects.
            choices: What is taken as it is.

        Raises:
            ValueError: If an argument is out of range.
            TypeError: If an argument is of the wrong type.
        """
        check_choice("norm", choices["norm"], ("keep", "reset"))
        check_choice("optimizer", choices["optimizer"], ("new", "keep", "clear"))
        check_choice("lr_schedule", choices["lr_schedule"], ("restart", "continue"))
        check_patterns("exclude", exclude)
        if not isinstance(choices["target"], str | None):
            raise TypeError(f"Expected argument `target` to be the name of a submodule, but got {choices['target']!r}.")
        if not isinstance(stop_at, Mapping | None):
            raise TypeError(
                f"Expected argument `stop_at` to give metrics goals, such as {{'val_acc': 0.9}}, but got {stop_at!r}."
            )
        listed: object = () if phases is None else phases
        if not isinstance(listed, Sequence) or not all(isinstance(phase, Phase) for phase in listed):
            raise TypeError(
                f"Expected argument `phases` to be a list of phases, such as `[SlimFirst()]`, but got {phases!r}."
            )
        goals = dict(stop_at or {})
        check_goals(goals)
        schedule = get_schedule(schedule)
        if schedule is not None and choices["lr_schedule"] == "continue":
            schedule.check_continued()
        built = get_split(split, rate, ops)
        if schedule is not None and schedule.rate:
            built = RateByGeneration(built, schedule.rate)
        for phase in phases or ():
            check_named("phases", phase, "name")
            phase.check(built)
        return cls(
            split=built,
            reset=get_reset(reset),
            exclude=tuple(exclude),
            stop_at=goals,
            schedule=schedule,
            phases=tuple(phases or ()),
            **choices,
        )
