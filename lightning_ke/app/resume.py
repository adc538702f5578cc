"""A run that goes on: with its own configuration, longer if asked, and with nothing else changed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lightning_ke.app.run_folder import RunFolder, is_first_process

# How long a run is.
_LENGTH = ("generations.count", "generations.epochs", "trainer.max_epochs")
# What else makes a finished run go on: it may have ended with fewer generations than planned.
_GOALS = "generations.stop_at"
# Groups that are no part of what they have composed.
_GROUPS = ("experiment", "debug")
# Paths that the user gives.
_DATA = ("datamodule.root", "datamodule.file", "datamodule.images.root")
_PATHS = (*_DATA, "backbone.weights", "split.mask", "loss.teacher.checkpoint")
# What may be different when a run goes on.
_FREE = (
    *_LENGTH,
    _GOALS,
    "threads",
    *_DATA,
    "datamodule.download",
    "datamodule.num_workers",
    "datamodule.images.download",
    "datamodule.images.num_workers",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
)


def continue_run(folder: Path, overrides: Sequence[str]) -> None:
    """Continue the run that a folder holds.

    Args:
        folder: Its folder.
        overrides: What to change, as on the command line of `ke-train`.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If an override contradicts the run.
    """
    record = RunFolder(folder)
    if not record.holds_run:
        raise FileNotFoundError(
            f"Expected {str(folder)!r} to hold a run, but it has no config.yaml. Give the output folder of a run of "
            "ke-train: resume=DIR."
        )
    if flags := [argument for argument in overrides if argument.startswith("-")]:
        raise ValueError(
            f"Expected nothing but key=value beside resume=DIR, but got {flags[0]!r}. A sweep is continued by the "
            "command that began it."
        )
    if groups := [override for override in overrides if override.lstrip("+~").partition("=")[0] in _GROUPS]:
        raise ValueError(
            f"Expected nothing but single values beside resume=DIR, but got {groups[0]!r}. The run goes on with its "
            "own configuration; for another one begin a new run."
        )
    saved = relocated(record.config, record)
    config = absolute(_compose(record, overrides))
    check_same(saved, config, record.path)
    longer = any(_select(saved, key) != _select(config, key) for key in (*_LENGTH, _GOALS))
    if record.finished and not longer:
        count = _select(config, "generations.count")
        print(
            f"The run in {folder} is finished: see {folder / 'tables.md'}. For more generations: "
            f"ke-train resume={folder} generations.count={count + 1 if isinstance(count, int) else 'N'}"
            f"{', or other goals by generations.stop_at' if _select(config, _GOALS) else ''}"
        )
        return
    _log_to(record.path / "ke-train.log")
    from lightning_ke.app.build import importable_from
    from lightning_ke.app.experiment import run

    with record.kept(), importable_from(record.began_in):
        run(config, record.path, resume=True)


def absolute(config: DictConfig) -> DictConfig:
    """A configuration whose paths do not depend on the current folder: a run may go on from another one.

    Args:
        config: The configuration, as the user has written it in the current folder.
    """
    config = config.copy()
    for key in _PATHS:
        value = OmegaConf.select(config, key, throw_on_missing=False)
        if isinstance(value, str):
            OmegaConf.update(config, key, str(Path(value).expanduser().absolute()))
    return config


def relocated(config: DictConfig, record: RunFolder) -> DictConfig:
    """A run's configuration, with the paths in its folder as they are now: the folder may have been moved.

    Args:
        config: The configuration, as it was when the run was at work last.
        record: The run's folder.
    """
    before, now = str(record.status.get("folder", record.path)), str(record.path)

    def here(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: here(item) for key, item in value.items()}
        if isinstance(value, list):
            return [here(item) for item in value]
        inside = isinstance(value, str) and (value == before or value.startswith(f"{before}/"))
        return now + value[len(before) :] if inside else value

    content: dict[str, Any] = here(OmegaConf.to_container(config))
    return OmegaConf.create(content)


def check_same(saved: DictConfig, asked: DictConfig, folder: Path) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
        saved: The configuration of the run.
        asked: The one that it is to go on with.
        folder: The run's folder.

    Raises:
        ValueError: If it would be another run, or a shorter one.
    """
    old, new = dict(_flat(saved)), dict(_flat(asked))
    # Where something else ends a generation, its `most` was taken from `epochs` when the run began, which says no more.
    free = [name for name in _FREE if name != "generations.epochs" or "generations.end.most" not in old]
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key) and not any(key == name or key.startswith(f"{name}.") for name in free):
            raise ValueError(
                f"Expected {_said(old, key)} as in {folder / 'config.yaml'}, but got {_said(new, key)}. "
                "A run that goes on may be made longer (generations.count); for other changes begin a new run."
            )
    for key in ("generations.count", "trainer.max_epochs"):
        before, after = _select(saved, key), _select(asked, key)
        if isinstance(before, int) and isinstance(after, int) and after < before:
            raise ValueError(
                f"Expected `{key}` to be at least {before}, as in {folder / 'config.yaml'}, but got {after}. "
                "A run that goes on may be made longer, not shorter."
            )


def _compose(record: RunFolder, overrides: Sequence[str]) -> DictConfig:
    """The run's own configuration under Hydra's rules: an unknown key is an error, not a new one."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(record.path), version_base="1.3"):
        return relocated(compose("config", list(overrides)), record)


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    if isinstance(plain, dict) and plain:
        for key, value in plain.items():
            yield from _flat(value, f"{prefix}.{key!s}" if prefix else str(key))
    else:
        yield prefix, plain


def _said(flat: Mapping[str, Any], key: str) -> str:
    """What a flat configuration says of a key, which may be a group in it."""
    if key in flat:
        return f"`{key}={flat[key]}`"
    return f"`{key}`" if any(other.startswith(f"{key}.") for other in flat) else f"no `{key}`"


def _select(config: DictConfig, key: str) -> Any:
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _log_to(path: Path) -> None:
    """Log as Hydra does for a new run: lines for the terminal, times in the file."""
    console, file = logging.StreamHandler(sys.stdout), logging.FileHandler(path, encoding="utf-8")
    console.setFormatter(logging.Formatter("%(message)s"))
    file.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[console, file] if is_first_process() else [console], force=True)
