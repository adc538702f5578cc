"""What to say when a process of a distributed run cannot be reached any more."""

from __future__ import annotations

import re

# What torch's gloo, nccl and store say; all of them raise RuntimeErrors (torch's own classes inherit from it).
_LOST = re.compile(
    r"timed?[ -]?out|connection (closed|reset|refused)|socket|broken pipe|no route to host|network is down|"
    r"network is unreachable|by peer|watchdog|remote (process|worker)",
    re.IGNORECASE,
)


def advice_on(exception: BaseException, world_size: int, generation: int) -> str | None:
    """Say what to do if an exception means that another process is lost, else nothing.

    Args:
        exception: What ended the run.
        world_size: Number of processes.
        generation: The generation in progress.

    Example:
        >>> print(advice_on(RuntimeError("Timed out waiting 20000ms for recv operation to complete"), 2, 3))
        KnowledgeEvolution: this process cannot reach another one any more; the run ends in generation 3. ...
        >>> advice_on(RuntimeError("shape mismatch"), 2, 3) is None
        True
    """
    if world_size < 2 or not isinstance(exception, RuntimeError) or not _LOST.search(str(exception)):
        return None
    return (
        f"KnowledgeEvolution: this process cannot reach another one any more; the run ends in generation {generation}. "
        'Start it again with `ckpt_path="last"`: it goes on from its last checkpoint. How long a process waits for the '
        "others is the strategy's `timeout` (30 minutes unless set, such as "
        "`DDPStrategy(timeout=timedelta(minutes=2))`)."
    )
