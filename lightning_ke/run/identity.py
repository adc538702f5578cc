"""What must not change within a run, and what may but is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_ke.endings import FixedLength, GenerationEnd
from lightning_ke.generations import Plan
from lightning_ke.settings import Settings


def identity(settings: Settings, policy: GenerationEnd, plan: Plan | None) -> dict[str, Any]:
    """What must not change within a run, in plain types.

    Args:
        settings: What the user asked for.
        policy: What ends a generation.
        plan: How the run is divided, None if no generation can end.
    """
    epochs = None if plan is None else plan.epochs
    return {
        **settings.split.identity(),
        "target": settings.target,
        "end": None if isinstance(policy, FixedLength) else policy.identity(),  # lengths are those of the plan
        "epochs_per_generation": list(epochs) if isinstance(epochs, tuple) else epochs,
        "schedule": None if settings.schedule is None else settings.schedule.identity(),
        "phases": [phase.identity() for phase in settings.phases],
    }


def manner(settings: Settings) -> dict[str, Any]:
    """How generations are opened, in plain types; a resumed run may do it in another way.

    Args:
        settings: What the user asked for.
    """
    return {
        "reset": settings.reset.name,
        "norm": settings.norm,
        "exclude": list(settings.exclude),
        "optimizer": settings.optimizer,
        "lr_schedule": settings.lr_schedule,
    }


def tell_of_another_manner(asked: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Say what a resumed run does in another way than the run that it goes on with.

    Args:
        asked: `manner` of the run.
        saved: That of the checkpoint.
    """
    for name, value in asked.items():
        if saved[name] != value:
            rank_zero_warn(
                f"KnowledgeEvolution: the checkpoint's run had `{name}={saved[name]!r}`, this one goes on with "
                f"`{name}={value!r}`."
            )


def check_same_run(asked: Mapping[str, Any], saved: Mapping[str, Any], begun: int) -> None:
    """Refuse to go on with a run under other settings.

    Args:
        asked: What the user asks for now.
        saved: What the checkpoint's run was asked for.
        begun: Number of the generation that the checkpoint was written in.

    Raises:
        ValueError: If they contradict each other.
    """
    asked, saved = dict(asked), dict(saved)
    lengths = [settings["epochs_per_generation"] for settings in (asked, saved)]
    if None not in lengths and any(isinstance(length, list) for length in lengths):
        # Another list goes on with the same run, if it agrees about the generations that there have been.
        asked["epochs_per_generation"], saved["epochs_per_generation"] = (
            length[:begun] if isinstance(length, list) else [length] * begun for length in lengths
        )
    for settings in (asked, saved):
        settings["end"] = settings["end"] or "length"  # as it is asked for
    for name, value in asked.items():
        if saved.get(name) != value:
            raise ValueError(
                f"Expected `{name}={saved.get(name)!r}` as in the checkpoint, but got `{name}={value!r}`. Resume "
                "with the checkpoint's value (more generations are allowed), or begin a new run without it."
            )
