"""Goals of a run: metrics that end it once the end of a generation reaches all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ke.endings import GenerationEnd


def check_goals(stop_at: Mapping[str, float | str]) -> None:
    """Refuse goals that cannot be read.

    Args:
        stop_at: As for `reached`.

    Raises:
        ValueError: Naming the goal.

    Example:
        >>> check_goals({"val_acc": "high"})
        Traceback (most recent call last):
        ...
        ValueError: Expected argument `stop_at` to give `val_acc` a number or a string such as '<=0.3', but got 'high'.
    """
    for name, goal in stop_at.items():
        _bounds(name, goal)


def check_fit_goals(stop_at: Mapping[str, float | str], end: GenerationEnd | None, score_fit: object) -> None:
    """Refuse to wait for scores of the fit hypothesis that are not taken.

    Args:
        stop_at: As for `reached`.
        end: What `get_ending` returned.
        score_fit: The callback's argument of that name.

    Raises:
        ValueError: If the scores would be missing.
    """
    watched = dict.fromkeys(stop_at, "`stop_at`") | {
        getattr(end, argument, ""): "`end`" for argument in ("monitor", "train_monitor")
    }
    for name, argument in watched.items():
        if str(name).startswith("ke/fit/") and score_fit is False:
            raise ValueError(
                f"Expected argument `score_fit` to be 'epoch' because {argument} waits for `{name}`, but got False."
            )
    if end is not None and score_fit == "generation":
        raise ValueError(
            f"Expected argument `score_fit` to be 'epoch' for generations that end by {end.reason}, because nobody "
            "knows beforehand which validation is their last, but got 'generation'."
        )


def reached(stop_at: Mapping[str, float | str], metrics: Mapping[str, float]) -> bool:
    """Say whether every metric is as good as wanted.

    Args:
        stop_at: What each metric must reach: a number that it must come up to, or a string such as "<=0.3".
        metrics: All that was logged.

    Raises:
        ValueError: If a metric is not logged, or a goal cannot be read.

    Example:
        >>> reached({"val_acc": 0.6, "val_loss": "<=0.3"}, {"val_acc": 0.7, "val_loss": 0.2})
        True
    """
    for name, goal in stop_at.items():
        low, high = _bounds(name, goal)
        if not low <= logged(metrics, name) <= high:
            return False
    return True


def _bounds(name: str, goal: object) -> tuple[float, float]:
    """The least and the greatest value that a goal allows."""
    given: tuple[str, Any] = (goal[:2], goal[2:]) if isinstance(goal, str) else (">=", goal)
    sign, number = given
    try:
        value = math.nan if isinstance(number, bool) else float(number)  # what is no number is refused below
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value) or sign not in (">=", "<="):
        raise ValueError(
            f"Expected argument `stop_at` to give `{name}` a number or a string such as '<=0.3', but got {goal!r}."
        )
    return (value, math.inf) if sign == ">=" else (-math.inf, value)


def logged(metrics: Mapping[str, float], name: str) -> float:
    """Look up what a goal or a policy waits for.

    Args:
        metrics: All that was logged.
        name: Name of the metric.

    Raises:
        ValueError: If it is not logged.

    Example:
        >>> logged({"val_acc": 0.5}, "val_acc")
        0.5
    """
    if name not in metrics:
        raise ValueError(
            f"Expected the metric `{name}` to be logged at the end of every epoch, but there is none of that name. "
            f"Logged are {', '.join(sorted(metrics)) or 'none'}. Log it in `training_step` or in a validation: what "
            "`on_train_epoch_end` logs comes behind the end of a generation. A generation must last until its first "
            "validation (`check_val_every_n_epoch`)."
        )
    return metrics[name]
