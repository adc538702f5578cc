"""Signals that wait: what must not be interrupted in the middle is done before a handler runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Let the Python handlers of signals that arrive in the block run when it is over.

    A cluster's signal makes Lightning write a checkpoint at once, wherever it comes. Signals without a Python handler
    do what they always do. Outside the main thread, in which alone handlers run, nothing is deferred.

    Example:
        >>> import os
        >>> came = []
        >>> before = signal.signal(signal.SIGUSR1, lambda *_: came.append("handled"))
        >>> with deferred_signals():
        ...     os.kill(os.getpid(), signal.SIGUSR1)
        ...     came.append("block")
        >>> came
        ['block', 'handled']
        >>> _ = signal.signal(signal.SIGUSR1, before)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    every = {int(number): signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in every.items() if callable(handler)}
    arrived: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if number not in arrived:
            arrived.append(number)

    try:
        for number in handlers:
            signal.signal(number, remember)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
