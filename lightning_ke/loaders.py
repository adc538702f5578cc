"""The training loaders of a run that goes on: whose order a checkpoint must hold, and when it is taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch

from lightning_ke.compatibility import class_names

if TYPE_CHECKING:
    from lightning_ke.compatibility import Trainer


def loader_generators(trainer: Trainer) -> list[torch.Generator]:
    """The generators that users gave to loaders and samplers, each once; those of loaders yet to be built are missing.

    Args:
        trainer: The Trainer.
    """
    fit_loop = trainer.fit_loop
    loaders = [
        loader
        for combined in (fit_loop._combined_loader, fit_loop.epoch_loop.val_loop._combined_loader)
        if combined is not None
        for loader in combined.flattened
    ]
    holders = [
        holder
        for loader in loaders
        for holder in (loader, getattr(loader, "sampler", None), _sampler_of_batches(loader))
    ]
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())


def _sampler_of_batches(loader: Any) -> Any:
    return getattr(getattr(loader, "batch_sampler", None), "sampler", None)


def keeps_workers(trainer: Trainer) -> bool:
    """True if worker processes live through several epochs; what they draw from is theirs, and no checkpoint holds it.

    Args:
        trainer: The Trainer, its training loaders built.
    """
    loaders = trainer.fit_loop._combined_loader.flattened
    return any(getattr(loader, "persistent_workers", False) and loader.num_workers > 0 for loader in loaders)


def builds_loader(trainer: Trainer) -> bool:
    """True if Lightning builds the training loader anew for the epoch that begins.

    Args:
        trainer: The Trainer at the beginning of an epoch.
    """
    every = trainer.reload_dataloaders_every_n_epochs
    return bool(every and trainer.current_epoch % every == 0)


def reload_loader(trainer: Trainer) -> None:
    """Build the training loader and its iterator anew.

    Args:
        trainer: The Trainer at the beginning of an epoch.
    """
    loop = trainer.fit_loop
    # There is no public call; this is what `reload_dataloaders_every_n_epochs` comes down to.
    loop._combined_loader = None
    loop.setup_data()
    for loader in loop._combined_loader.flattened:
        _set_sampler_epoch(loader, trainer.current_epoch)


def rebuild_iterator(trainer: Trainer) -> None:
    """Let Lightning build the training loader's iterator where it does in all epochs but a process's first.

    That is behind `on_train_epoch_start`. In a resumed run's first epoch Lightning 2.6 would take the one that it has
    built before any hook ran, and each iterator takes a number from the global generator.

    Args:
        trainer: The Trainer at the beginning of a resumed training, between two epochs.
    """
    trainer.fit_loop._resuming_from_checkpoint = False


def rebuilds_iterator(trainer: Trainer) -> bool:
    """True if Lightning is about to build the training loader's iterator anew for the epoch that begins.

    Args:
        trainer: The Trainer at the beginning of an epoch.
    """
    loop = trainer.fit_loop
    resuming = getattr(loop, "is_resuming", False) or loop.epoch_loop.restarting
    return bool(trainer.current_epoch > 0 and not resuming)


def loader_states(checkpoint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a checkpoint holds of the resumable training loaders.

    Args:
        checkpoint: The checkpoint that Lightning has read.
    """
    return list(checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", []))


def rewind_loaders(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Put torchdata's resumable loaders where they were at the end of the checkpoint's epoch.

    Args:
        trainer: The Trainer at the beginning of a resumed training.
        states: What `loader_states` returned.
    """
    loaders = [loader for loader in trainer.fit_loop._combined_loader.flattened if hasattr(loader, "load_state_dict")]
    if len(loaders) != len(states) or any("StatefulDataLoader" not in class_names(loader) for loader in loaders):
        return
    for loader, state in zip(loaders, states, strict=True):
        loader.load_state_dict(state)
        loader.state_dict()  # builds the iterator of the epoch that is over, which the next call of `iter` hands out
        if trainer.fit_loop._data_fetcher.length is not None:
            iter(loader)  # Lightning has asked for no batch beyond the last: the loader cannot know that it is over
