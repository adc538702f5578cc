"""An error in one sentence, for a status file and for the end of a sweep."""

from __future__ import annotations

from lightning_ke.app.messages import line_for
from lightning_ke.app.train import config_dir


def sentence_for(error: BaseException) -> str:
    """Say in one line what went wrong, whoever has to put it right.

    Args:
        error: What ended a run.

    Example:
        >>> sentence_for(ZeroDivisionError("division by zero"))
        'ZeroDivisionError: division by zero'
    """
    line = line_for(error, config_dir())
    if line is None:
        first = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
    return " ".join(line.split())
