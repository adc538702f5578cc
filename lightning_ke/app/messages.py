"""One clear line for what a user can put right; everything else keeps its traceback."""

from __future__ import annotations

import difflib
import linecache
import re
import traceback
from collections.abc import Iterator
from typing import Any

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

# Errors with which this package refuses an argument. Raised elsewhere they may be anybody's mistake.
_REFUSALS = (ValueError, TypeError, OSError, ModuleNotFoundError)

# What a loader makes of an error in one of its worker processes: a text that ends with it. Only classes of this package
# say that it is a sentence for the user.
_FROM_WORKER = re.compile(r"^Caught \w+ in DataLoader worker process (?:.*\n)+lightning_ke\.[\w.]+: (.+)\s*$")
# What other libraries refuse in sentences of their own, by how these begin, and what a user of ours can do.
_FOREIGN = {
    "Early stopping conditioned on metric": "Set callbacks.early_stopping.monitor to one of them.",
    "Expected more than 1 value per channel when training": (
        "Batch norms have no statistics of a single value: raise datamodule.batch_size or datamodule.image_size."
    ),
}


def line_for(error: BaseException) -> str | None:
    """Say in one line what to put right.

    Args:
        error: What composing the configuration or the job raised.

    Returns:
        The line, or None if the error is not the user's.
    """
    refusal: BaseException | None = error
    while refusal is not None:
        if isinstance(refusal, _REFUSALS) and _raised_in_package(refusal):
            return str(refusal)
        if handed_on := _FROM_WORKER.search(str(refusal)):
            return handed_on[1]
        if foreign := next((start for start in _FOREIGN if str(refusal).startswith(start)), None):
            return f"{' '.join(str(refusal).split()).removesuffix('.')}. {_FOREIGN[foreign]}"
        if type(refusal).__name__ == "MisconfigurationException":  # not imported for its name: this answers in no time
            return f"Lightning refuses this: {' '.join(str(refusal).split())}"
        refusal = refusal.__cause__
    if str(error).startswith("Config group override must be a string or a list"):  # Hydra's, but a plain ValueError
        return "Expected a group to have the name of an option, but got null. Write callbacks=none or logger=none."
    if isinstance(error, HydraException | OmegaConfBaseException):
        line = _unreadable(error) or _several(error) or _unknown_key(error) or _missing_plugin(error)
        line = line or _unknown_option(error) or _first_lines(error)
        return (
            f"{line} (HYDRA_FULL_ERROR=1 shows the traceback.)" if isinstance(error, InstantiationException) else line
        )
    return None


def _raised_in_package(error: BaseException) -> bool:
    """Whether a `raise` of this package made the error: then its text is a sentence for the user."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    frame, number = frames[-1]
    line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals)
    return str(frame.f_globals.get("__name__", "")).startswith("lightning_ke.") and line.lstrip().startswith("raise")


def _unreadable(error: BaseException) -> str | None:
    """What to do with an argument that Hydra's grammar does not know: paths with brackets or `=`, umlauts."""
    if not isinstance(error, OverrideParseException):
        return None
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"Expected arguments of the form KEY=VALUE, but got {error.override!r}."
    return (
        f"Expected a value for {key!r} that Hydra can read, but got {value!r}. One with brackets, `=` or other letters "
        f"than English ones stands in quotes of its own: \"{key}='{value}'\"."
    )


def _several(error: BaseException) -> str | None:
    """What to do with several values outside of a sweep."""
    found = re.search(r"Ambiguous value for argument '([^=']+)=(.+)'", str(error))
    if found is None:
        return None
    key, values = found[1], found[2]
    return f"Expected one value for {key!r}, but got {values}. For a sweep add -m; a list is written {key}=[{values}]."


def _unknown_key(error: BaseException) -> str | None:
    found = re.search(r"Could not override '([^']+)'", str(error)) or re.search(
        r"Key '([^']+)' is not in struct", str(error)
    )
    if found is None:
        return None
    key = found[1]
    return f"There is no key {key!r}. {_hint(key, _known_keys(error))} (A new key is added by +{key}=VALUE.)"


def _hint(key: str, known: list[str]) -> str:
    """What a wrong key may have meant: a key of its group, or of any group if it is written without one."""
    group, _, name = key.rpartition(".")
    names: dict[str, str] = {}
    if group and group not in known:
        name, names = key, {candidate: candidate for candidate in known}
    else:  # whole keys of one group are alike already, whatever follows
        for candidate in sorted(known, key=lambda candidate: candidate.count(".")):
            where, _, own = candidate.rpartition(".")
            if (not group or where == group) and not own.startswith("_"):
                names.setdefault(own, candidate)
    if nearest := difflib.get_close_matches(name, names, n=1, cutoff=0.7):
        return f"Did you mean {names[nearest[0]]!r}?"
    if group in known and names:
        return f"{group!r} has {', '.join(names)}."
    return "`ke-train --help` shows the known ones."


def _missing_plugin(error: BaseException) -> str | None:
    """How to install what brings a launcher or a sweeper."""
    found = re.search(r"Could not (?:find|load) 'hydra/(?:launcher|sweeper)/(joblib|submitit|ray|optuna)", str(error))
    if found is None:
        return None
    return f'Expected Hydra\'s plugin for {found[1]} to be installed. Run `pip install "lightning-ke[launchers]"`.'


def _unknown_option(error: BaseException) -> str | None:
    found = re.search(r"Could not find '(.+)/([^'/]+)'\s+Available options in '.+':\n((?:\t.*\n)*)", str(error))
    if found is None:
        return None
    group, option, options = found[1], found[2], found[3].split()
    hint = f" A network is chosen by backbone.name={option}." if group == "backbone" else ""
    return f"The group {group!r} has no option {option!r}; it has {', '.join(options)}.{hint}"


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])


def _known_keys(error: BaseException) -> list[str]:
    """The keys of what was composed until the error, with the options of the groups that were chosen."""
    causes = [cause for cause in (error, error.__cause__) if isinstance(cause, OmegaConfBaseException)]
    node = next((cause.parent_node for cause in causes if cause.parent_node is not None), None)
    config = {} if node is None else OmegaConf.to_container(node._get_root(), resolve=False)
    return [*_keys(config, ""), "experiment", "resume"]


def _keys(config: Any, prefix: str) -> Iterator[str]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")
