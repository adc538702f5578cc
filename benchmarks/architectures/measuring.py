"""What is measured of one network."""

from __future__ import annotations

import copy
import ctypes
import gc
import multiprocessing
import signal
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

import lightning_ke as ke
from benchmarks.architectures.networks import CLASSES, build
from benchmarks.speed.drawing import groups
from benchmarks.speed.timing import samples
from lightning_ke.cost import as_call
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import tensors_in
from lightning_ke.slim import SlimError, refresh
from lightning_ke.slim.double import in_double
from lightning_ke.slim.extract import structure_of
from lightning_ke.slim.proof import TOLERANCE, calls_of, difference, randomise, run_fit, run_slim
from lightning_ke.slim.reference import without_reset_hypothesis

RATES = (0.3, 0.5, 0.8)
#: Parameters that are corrupted, one kept slice each, and slices that are tried of each (a unit may be dead).
CORRUPTED, TRIED = 3, 4
#: What a layer calls the number of its outputs.
LEAVING = ("out_features", "out_channels")
#: Seconds within which torch-pruning has to be done with a network.
PATIENCE = 300


def measure(family: str, name: str, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a network's row that are not measured yet, one after another."""
    network, small, own = build(family, name)
    weights = sum(parameter.numel() for parameter in network.parameters())
    if "draw" not in row:
        memory = in_a_process(lambda: extra_memory(network, own))  # before any mask has left room in this one's heap
        yield {"draw": relative_time(network, own), "memory": memory / (4 * weights)}
    if not {"saved", "caught"} <= row.keys():
        masks = [ke.draw_mask(network, split="kels", rate=rate, example_input=small) for rate in RATES]
        size = next(tensors_in(small)).shape[-1]
        yield {"params": weights, "input": size, "fit": [mask.fit_share for mask in masks]}
    if "saved" not in row:
        dense = ke.measure_cost(network, small)
        saved = []
        for mask in masks:
            slim = ke.extract_slim(network, mask)
            saved.append(1 - ke.measure_cost(slim, small).ops / dense.ops)
            del slim
        yield {"saved": saved}
    if "caught" not in row:
        yield {"caught": caught(network, masks[RATES.index(0.5)])}
    if family == "torchvision" and "peer" not in row:
        yield {"peer": relative_to_peer(network, own)}


def half_by_peer(network: nn.Module, x: Tensor) -> None:
    """Let torch-pruning prune a copy of a network to half its channels, and run what comes out."""
    halved = copy.deepcopy(network)
    heads = [module for module in halved.modules() if CLASSES in (vars(module).get(name) for name in LEAVING)]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    torch_pruning.pruner.BasePruner(halved, x, importance, pruning_ratio=0.5, ignored_layers=heads).step()
    with torch.no_grad():
        halved(x)


def relative_to_peer(network: nn.Module, x: Tensor) -> float | None:
    """Processor time of drawing a mask, relative to torch-pruning's time to find its groups; None where it fails."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    network.eval()
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        half_by_peer(network, x)
    except Exception:
        return None
    finally:
        signal.alarm(0)
    actions = {
        "draw": lambda: ke.draw_mask(network, split="kels", rate=0.5, example_input=x),
        "peer": lambda: groups(network, x),
    }
    taken = samples(actions, rounds=3)
    return statistics.median(draw / peer for draw, peer in zip(taken["draw"], taken["peer"], strict=True))


def relative_time(network: nn.Module, x: Any) -> float:
    """Processor time of drawing a mask, relative to that of one forward: the median of pairs that take turns."""
    network.eval()
    args, kwargs = as_call(x)

    def forward() -> None:
        with torch.no_grad():
            network(*args, **kwargs)

    actions = {"draw": lambda: ke.draw_mask(network, split="kels", rate=0.5, example_input=x), "forward": forward}
    taken = samples(actions, rounds=5)
    return statistics.median(draw / run for draw, run in zip(taken["draw"], taken["forward"], strict=True))


def extra_memory(network: nn.Module, x: Any) -> int:
    """Bytes of resident memory at the highest point of drawing a mask above its start (Linux, glibc).

    Pages of libraries' own code that are read for the first time meanwhile are not counted.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 16384)  # M_MMAP_THRESHOLD: blocks of 16 kB and more go back to the system when they are freed
    libc.mallopt(-1, 0)  # M_TRIM_THRESHOLD: and so does the rest
    gc.collect()
    libc.malloc_trim(0)
    start, library = status("VmRSS"), status("RssFile")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    ke.draw_mask(network, split="kels", rate=0.5, example_input=x)
    return max(status("VmHWM") - start - (status("RssFile") - library), 0)


def status(field: str) -> int:
    """A figure of this process, in bytes (Linux)."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(field + ":"):
            return int(text.split()[1]) * 1024
    raise RuntimeError(f"This kernel's /proc/self/status has no {field}.")


def in_a_process(action: Callable[[], int]) -> int:
    """What an action returns in a copy of this process, on which it leaves no trace."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(action()))
    process.start()
    sender.close()
    found: int = receiver.recv()
    process.join()
    return found


def caught(network: nn.Module, mask: ke.Mask) -> int:
    """Of how many corrupted weights the proof takes notice."""
    structure = structure_of(mask)
    calls = calls_of(structure, None)
    slim = private_copy(ke.extract_slim(network, mask, verify=False), in_double)
    dense = private_copy(network, in_double)
    randomise(dense)
    refresh(slim, dense, structure)
    without_reset_hypothesis(dense, structure)
    expected = run_fit(dense, structure, calls)
    del dense
    found = difference(run_slim(slim, calls), expected)
    if not found <= TOLERANCE:
        raise SlimError(f"The slim network differs by {found:.1e} before anything is corrupted.")
    weights = [
        parameter
        for key, parameter in slim.named_parameters()
        if parameter.dim() > 1 and key in structure.cuts and key not in (*structure.unreached, *structure.train_only)
    ]
    chosen = [weights[round(at * (len(weights) - 1) / (CORRUPTED - 1))] for at in range(CORRUPTED)]
    return sum(noticed(slim, weight, calls, expected) for weight in chosen)


def noticed(slim: nn.Module, weight: Tensor, calls: list[Any], expected: list[Tensor]) -> bool:
    """Whether the outputs differ as soon as one kept slice of a weight is another."""
    generator = torch.Generator().manual_seed(0)
    for index in torch.randperm(len(weight), generator=generator)[:TRIED].tolist():
        original = weight.detach()[index].clone()
        noise = torch.randn(original.shape, generator=generator, dtype=original.dtype)
        with torch.no_grad():
            weight[index] += original.abs().mean() * noise
        found = difference(run_slim(slim, calls), expected)
        with torch.no_grad():
            weight[index] = original
        if found > TOLERANCE:
            return True
    return False
