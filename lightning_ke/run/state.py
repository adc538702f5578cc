"""What a checkpoint holds of a run, and how a run takes it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_ke.generations import Clock
from lightning_ke.run.evolution import EvolutionRun
from lightning_ke.run.identity import check_same_run, identity, manner, tell_of_another_manner

_STATE_VERSION = 1


def state_of(run: EvolutionRun) -> dict[str, Any]:
    """Everything that is needed to continue a run exactly, in plain types.

    Args:
        run: The run.

    Raises:
        TypeError: If an ending, a reset or a phase of the user's own remembers what no resumed run could read.
    """
    own = {
        "policy": run.policy.state_dict(),
        "reset": run.settings.reset.state_dict(),
        "phases": run.phases.state_dict(),
    }
    for name, held in own.items():
        _check_plain(held, {"policy": "end"}.get(name, name))
    return {
        **own,
        "version": _STATE_VERSION,
        "settings": identity(run.settings, run.policy, run.plan),
        "manner": manner(run.settings),
        "opening": run.opening,
        "clock": run.clock.state_dict(),
        **run.split.state_dict(),
        **run.records.state_dict(),
        **run.rng.state_dict(),
    }


def _check_plain(held: object, argument: str) -> None:
    """Refuse what a checkpoint can hold but nobody can read with ``weights_only=True``."""
    if isinstance(held, Mapping):
        for key, value in held.items():
            _check_plain(key, argument)
            _check_plain(value, argument)
    elif isinstance(held, list | tuple) and type(held) in (list, tuple):  # a named tuple is a class of its own
        for value in held:
            _check_plain(value, argument)
    elif not isinstance(held, Tensor) and type(held) not in (bool, int, float, str, type(None)):
        raise TypeError(
            f"Expected the `state_dict` of argument `{argument}` to hold numbers, strings, tensors, lists and dicts, "
            f"but it holds a {type(held).__module__}.{type(held).__name__}, with which no checkpoint could be resumed. "
            "Convert it, for example by `float(value)`."
        )


def take_up(run: EvolutionRun, state: Mapping[str, Any], *, seed: int | None) -> None:
    """Let a run that has not begun go on with that of a checkpoint.

    Args:
        run: The run.
        state: What `state_of` returned.
        seed: The seed that the user asked for, if any.

    Raises:
        ValueError: If the user's settings contradict the run of the checkpoint.
    """
    if state.get("version") != _STATE_VERSION:
        raise ValueError(
            f"Expected a checkpoint with KnowledgeEvolution state version {_STATE_VERSION}, but got version "
            f"{state.get('version')!r}. Resume it with the version of lightning_ke that wrote it."
        )
    asked = identity(run.settings, run.policy, run.plan) | ({} if seed is None else {"seed": seed})
    check_same_run(asked, {**state["settings"], "seed": state["seed"]}, state["clock"]["generation"])
    run.clock = Clock.from_state_dict(state["clock"])
    run.split.load_state_dict(state, rank=run.rank)
    run.records.load_state_dict(state)
    run.policy.load_state_dict(state["policy"])
    run.phases.load_state_dict(state["phases"])
    _take_up_reset(run, state)
    run.resumed = True
    run.rng.load_state_dict(state)  # last: whatever draws has drawn


def _take_up_reset(run: EvolutionRun, state: Mapping[str, Any]) -> None:
    reset, now = run.settings.reset, manner(run.settings)
    before = {**now, **state.get("manner", {})}
    if state.get("opening") and reset.reads_current:
        raise ValueError(
            "Expected a checkpoint that was not written in the middle of a redraw, but one failed there, and reset "
            f"{reset.name!r} builds on weights that it has changed in part. Resume from an earlier checkpoint."
        )
    if reset.name == before["reset"]:
        reset.load_state_dict(state["reset"])
    elif not reset.ready:
        raise ValueError(
            f"Expected `reset={before['reset']!r}` as in the checkpoint, but got `reset={reset.name!r}`, which needs "
            "the network's first weights. Resume with the checkpoint's value, or begin a new run without it."
        )
    tell_of_another_manner(now, before)


def check_horizon(run: EvolutionRun) -> None:
    """Refuse schedules that were built before the checkpoint said how long the generation in progress is.

    Args:
        run: The run, taken up.

    Raises:
        ValueError: If they were built for a generation of another length.
    """
    first, now = run.policy.horizon(1), run.horizon
    if run.settings.lr_schedule == "restart" and first != now:
        raise ValueError(
            f"Expected generations of one length to resume with ModelParallelStrategy, but the first has {first} "
            f"epochs and generation {run.clock.generation} has {now}: Lightning builds a sharded network's "
            "schedules before it reads the checkpoint. Use `lr_schedule='continue'`, or resume with "
            "`strategy='ddp'`."
        )
