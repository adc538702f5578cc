"""Checkpoints that cannot be resumed from: cut off, of something else, with a state that no run has left."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ke.compatibility import Trainer

_OF_A_TRAINING = ("pytorch-lightning_version", "state_dict", "loops")


def explain_unreadable(trainer: Trainer) -> Callable[[], None]:
    """Let a checkpoint that cannot be read or is none of a training be named, until the returned function is called.

    Args:
        trainer: The Trainer, whose strategy reads it.
    """
    reader = trainer.strategy.checkpoint_io
    read = reader.load_checkpoint

    @functools.wraps(read)
    def load_checkpoint(path: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            checkpoint = read(path, *args, **kwargs)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise  # the system's own words are clear
        except Exception as error:  # whatever torch and pickle stumble over
            raise ValueError(
                f"Expected `{path}` to be a whole checkpoint, but it cannot be read ({_words(error)}). If its writing "
                "was interrupted, resume from an earlier checkpoint."
            ) from error
        held = checkpoint if isinstance(checkpoint, Mapping) else {}
        if missing := [name for name in _OF_A_TRAINING if name not in held]:
            raise ValueError(
                f"Expected `{path}` to be a checkpoint of a training, but it holds no {missing[0]!r}. If it holds "
                "weights, load them into the module and begin a new run without `ckpt_path`."
            )
        return checkpoint

    def uninstall() -> None:
        reader.__dict__.pop("load_checkpoint", None)

    reader.load_checkpoint = load_checkpoint
    return uninstall


@contextmanager
def explain_nonsense() -> Iterator[None]:
    """Name the checkpoint's state as the cause of whatever its reading stumbles over inside the block.

    Raises:
        ValueError: If something in the block fails in a way that is no sentence of ours.

    Example:
        >>> with explain_nonsense():
        ...     {}["mask"]
        Traceback (most recent call last):
        ...
        ValueError: Expected the checkpoint to hold a whole state of KnowledgeEvolution, but it cannot be read (KeyError
        'mask'). Resume from another checkpoint.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(
            f"Expected the checkpoint to hold a whole state of KnowledgeEvolution, but it cannot be read "
            f"({_words(error)}). Resume from another checkpoint."
        ) from error


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
