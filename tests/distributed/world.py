"""Real processes for the distributed tests: each is one rank of a world, started as `torchrun` starts it.

They are forked from a server that has imported everything and trained nothing, so a world of four is there in a second.
Lightning takes such processes as they are; how it starts processes of its own is tested in `test_launch.py`.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

#: What a training imports while it runs; a busy machine would take seconds for it in each process.
PRELOADED = [__name__, "tests.distributed.programs", "torch.distributed.checkpoint", "torch._dynamo", "omegaconf"]
#: Seconds until a world that hangs is ended; no measure of speed.
PATIENCE = 400


def free_port() -> int:
    """A port of this machine that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_world(size: int, program: Callable[..., Any], *args: Any) -> list[Any]:
    """Run a program as every rank of a world and return what the ranks return, in order.

    Args:
        size: Number of ranks.
        program: A function of a module; called with `args` in each process.
        args: Anything that can be pickled.

    Raises:
        RuntimeError: With the traceback of the first rank that fails; the others are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port, ends, processes = free_port(), {}, []
    try:
        for rank in range(size):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_rank, args=(there, rank, size, port, program, args), daemon=True)
            process.start()
            there.close()
            ends[here] = rank
            processes.append(process)
        return _collect(ends)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _collect(ends: dict[Any, int]) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + PATIENCE
    while len(results) < len(ends):
        ready = wait([end for end, rank in ends.items() if rank not in results], max(deadline - time.monotonic(), 0))
        if not ready:
            raise RuntimeError(f"Only ranks {sorted(results)} of {len(ends)} have come to an end in {PATIENCE} s.")
        for end in ready:
            try:
                failure, result = end.recv()
            except EOFError:
                failure, result = "it ended without a word", None
            if failure is not None:
                raise RuntimeError(f"Rank {ends[end]} failed: {failure}")
            results[ends[end]] = torch.load(io.BytesIO(result), weights_only=False)
    return [results[rank] for rank in range(len(ends))]


def _rank(end: Connection, rank: int, size: int, port: int, program: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ.update(
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "tests",
        }
    )
    torch.set_num_threads(1)
    try:
        result = program(*args)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # rank 0 holds the addresses of all
            torch.distributed.destroy_process_group()
        content = io.BytesIO()  # else tensors would be handed over in memory that dies with this process
        torch.save(result, content)
        end.send((None, content.getvalue()))
    except BaseException:
        end.send((traceback.format_exc(), None))
