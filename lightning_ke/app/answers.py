"""An error in one sentence: on the command line, in a status file, at the end of a sweep."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_ke.app.files import disk_sentence
from lightning_ke.app.messages import line_for

# Says that the traceback was asked for by this command and not by the user, here and in processes that a run starts.
_OURS = "KE_ANSWERS_ERRORS"


def sentence_for(error: BaseException) -> str:
    """Say in one line what went wrong, whoever has to put it right.

    Args:
        error: What ended a run.

    Example:
        >>> sentence_for(ZeroDivisionError("division by zero"))
        'ZeroDivisionError: division by zero'
    """
    line = line_of(error)
    if line is None:
        first = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
    return " ".join(line.split())


def line_of(error: BaseException) -> str | None:
    """Say in one line what the user has to put right; None if the error is not the user's.

    Args:
        error: What ended a run.
    """
    return line_for(error) or disk_sentence(error)


@contextmanager
def answered() -> Iterator[None]:
    """Answer what the user can put right by one line on stderr; everything else keeps its traceback.

    Raises:
        SystemExit: With code 2, in place of such an error; with a shell's code for SIGTERM if a run was ended by it.
    """
    try:
        yield
    except SystemExit as stopped:
        if type(stopped).__name__ == "SIGTERMException":  # Lightning's has no code, and shells take that for success
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    except Exception as error:
        line = None if _wants_traceback() else line_of(error)
        if line is None:
            raise
        print(f"ke-train: {line}", file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def errors_raised() -> Iterator[None]:
    """Let Hydra raise what goes wrong while composing, which it prints in a way of its own else."""
    if "HYDRA_FULL_ERROR" in os.environ:
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ[_OURS] = "1"
    try:
        yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"], os.environ[_OURS]


def _wants_traceback() -> bool:
    return bool(os.environ.get("HYDRA_FULL_ERROR")) and _OURS not in os.environ
