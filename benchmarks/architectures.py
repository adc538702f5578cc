"""Which architectures are supported: every classification network of torchvision, and the smallest of each timm module.

Usage: python -m benchmarks.architectures [--family torchvision|timm] [--limit SECONDS] [--again] [--drawing NAME ...]

"Supported" means that the mask is drawn *and* the slim network is proved at every rate. Random weights, one process per
network. What has been measured is kept beside the table in a file of JSON lines, part by part, so that an interrupted
run goes on where it stopped; `--again` measures what failed once more, `--drawing` what drawing costs. Needs Linux,
torchvision and timm.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import multiprocessing
import os
import platform
import resource
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

import lightning_ke as ke
from benchmarks.speed.drawing import groups
from benchmarks.speed.timing import samples
from lightning_ke.flow.copies import private_copy
from lightning_ke.slim import SlimError, refresh
from lightning_ke.slim.double import in_double
from lightning_ke.slim.extract import structure_of
from lightning_ke.slim.proof import TOLERANCE, calls_of, difference, randomise, run_fit, run_slim
from lightning_ke.slim.reference import without_reset_hypothesis

RATES = (0.3, 0.5, 0.8)
MEASURED = Path("docs/results/architectures.jsonl")
TABLE = Path("docs/architectures.md")
SMALLEST = Path("benchmarks/smallest_timm_models.json")
#: Bytes of memory that one network's process may use.
MEMORY = 14 * 2**30
#: Parameters that are corrupted, one kept slice each, and slices that are tried of each (a unit may be dead).
CORRUPTED, TRIED = 3, 4
#: Number of classes, and what a layer calls the number of its outputs.
CLASSES, LEAVING = 10, ("out_features", "out_channels")
#: Seconds within which torch-pruning has to be done with a network.
PATIENCE = 300

HEADER = """# Supported architectures

Written by `python -m benchmarks.architectures`; do not edit. Every classification network of torchvision and the
smallest network of each module that `timm.list_modules()` names, unmodified, with random weights and 10 classes.
**Supported: {torchvision} networks of torchvision, {timm} of timm.**

- *mask*: a KELS mask was drawn at all three rates.
- *fit*: share of the weights that the mask keeps (0.09, 0.25 and 0.64 where all layers can be cut).
- *exact*: the slim network was proved to compute what the fit hypothesis computes inside the dense network, at all
  three rates. A network is supported if it has a mask and an exact slim network.
- *caught*: of {corrupted} weights spread over the network one kept slice each was changed in the slim network of rate
  0.5; as many of them the proof noticed.
- *ops saved*: share of the operations that the slim network saves.
- *draw*: processor time to draw a mask, relative to one forward of one image at the network's own resolution; the
  median of five pairs that took turns.
- *peer*: the same time, relative to what torch-pruning takes for its dependency graph and the groups of
  channels read off it; the median of three pairs. It fails where it does not prune the network to half its channels
  within {patience} seconds, or where what it leaves does not run; only the networks of torchvision were tried.
- *memory*: peak of what drawing the mask needs beside the network, and as a share of the network's weights.

{cores} cores ({machine}), one thread, Python {python}, torch {torch}; the machine ran other programs as well.

| network | M weights | mask | fit 0.3 / 0.5 / 0.8 | exact | caught | ops saved 0.3 / 0.5 / 0.8 | draw | peer | memory |
|---|---|---|---|---|---|---|---|---|---|
"""


FOOTER = """
Rotary embeddings multiply every head by one table of fixed width, and samvit's queries meet a table of positions, so
no channel of a head can be dropped in vit_tiny_patch16_dinov3, qwen3_vit, gemma4_vit, deepseek_vit and samvit. They
keep or drop whole heads instead, and the stream keeps the channels that stand beside them: of the 3 heads of
vit_tiny_patch16_dinov3 1, 2 and 3 at the three rates.

Where the mask keeps much more than the rate asks for:

- gmlp: the weights that mix positions are no channels and stay whole.
- regnet_x and regnet_y: their grouped convolutions keep whole groups, so about the rate of these weights and not its
  square (regnet_x_400mf at 0.3: 0.32 of them, and 0.10 of the weights of all other convolutions).
"""


def names(families: list[str]) -> list[tuple[str, str]]:
    """Family and name of every network, the smallest first."""
    found: list[tuple[int, str, str]] = []
    if "torchvision" in families:
        from torchvision import models

        for name in models.list_models(module=models):
            size = models.get_model_weights(name).DEFAULT.meta["num_params"]
            found.append((size, "torchvision", name))
    if "timm" in families:
        found += [(size, "timm", name) for name, size in json.loads(SMALLEST.read_text()).values()]
    return [(family, name) for _, family, name in sorted(found)]


def choose() -> None:
    """Find the smallest network of each timm module (by parameters, built without memory)."""
    import timm

    smallest: dict[str, tuple[str, int]] = {}
    with torch.device("meta"):
        for module in timm.list_modules():
            for name in timm.list_models(module=module, pretrained=False):
                try:
                    size = sum(p.numel() for p in timm.create_model(name, pretrained=False).parameters())
                except (RuntimeError, NotImplementedError):  # builds on real memory only
                    continue
                if module not in smallest or size < smallest[module][1]:
                    smallest[module] = (name, size)
    SMALLEST.write_text(json.dumps(smallest, indent=1) + "\n")


def build(family: str, name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, a small input for the proof and one of its own resolution for the times."""
    warnings.simplefilter("ignore")
    if family == "timm":
        import timm

        network = timm.create_model(name, pretrained=False, num_classes=CLASSES)
        settings = network.default_cfg
        own = torch.zeros(1, *settings["input_size"])
        if settings.get("fixed_input_size") or own.shape[-1] <= 128:
            return network, own, own
        small = own[..., :128, :128]
        try:
            ke.measure_cost(network, small)
        except ValueError:  # its windows fit into its own resolution only
            small = own
        return network, small, own
    import torchvision

    options: dict[str, Any] = {"num_classes": CLASSES}
    size, small_size = 224, 96
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
        size = small_size = 299 if name == "inception_v3" else 224
    if name.startswith(("vit", "maxvit")):
        small_size = 224
    network = torchvision.models.get_model(name, weights=None, **options)
    return network, torch.zeros(1, 3, small_size, small_size), torch.zeros(1, 3, size, size)


def measure(family: str, name: str, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a network's row that are not measured yet, one after another."""
    network, small, own = build(family, name)
    weights = sum(parameter.numel() for parameter in network.parameters())
    if "draw" not in row:
        memory = in_a_process(lambda: extra_memory(network, own))  # before any mask has left room in this one's heap
        yield {"draw": relative_time(network, own), "memory": memory / (4 * weights)}
    if not {"saved", "caught"} <= row.keys():
        masks = [ke.draw_mask(network, split="kels", rate=rate, example_input=small) for rate in RATES]
        yield {"params": weights, "input": small.shape[-1], "fit": [mask.fit_share for mask in masks]}
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


def relative_time(network: nn.Module, x: Tensor) -> float:
    """Processor time of drawing a mask, relative to that of one forward: the median of pairs that take turns."""
    network.eval()

    def forward() -> None:
        with torch.no_grad():
            network(x)

    actions = {"draw": lambda: ke.draw_mask(network, split="kels", rate=0.5, example_input=x), "forward": forward}
    taken = samples(actions, rounds=5)
    return statistics.median(draw / run for draw, run in zip(taken["draw"], taken["forward"], strict=True))


def extra_memory(network: nn.Module, x: Tensor) -> int:
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


def one(family: str, name: str, row: dict[str, Any], answer: Any) -> None:
    """Measure one network in this process and send the parts of its row."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        for part in measure(family, name, row):
            answer.send(part)
    except Exception as error:
        sentence = " ".join(str(error).split())
        answer.send({"failure": f"{type(error).__name__}: {sentence}"[:400]})
    answer.send({})


def isolated(family: str, name: str, row: dict[str, Any], limit: float) -> dict[str, Any]:
    """Measure one network in a process of its own, which has imported everything already."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=one, args=(family, name, row, sender))
    process.start()
    sender.close()
    found = {key: value for key, value in row.items() if key != "failure"}
    end = time.monotonic() + limit
    try:
        while receiver.poll(max(end - time.monotonic(), 0)):
            part = receiver.recv()
            found.update(part)
            if not part:
                break
        else:
            found["failure"] = f"not done within {limit:.0f} seconds"
    except EOFError:
        found["failure"] = f"needs more than {MEMORY / 2**30:.0f} GB of memory"
    process.kill()
    process.join()
    return {"family": family, "name": name, **found}


def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """What has been measured so far, by family and name; the last measurement counts."""
    if not MEASURED.exists():
        return {}
    return {(row["family"], row["name"]): row for row in map(json.loads, MEASURED.read_text().splitlines())}


def sweep(families: list[str], limit: float, again: bool, drawing: list[str]) -> None:
    """Measure what has not been measured yet, and of some networks what drawing costs; one process per network."""
    torch.set_num_threads(1)
    ke.draw_mask(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), rate=0.5, example_input=torch.zeros(1, 3, 4, 4))
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    for family, name in names(families):
        row = rows().get((family, name), {})
        wanted = {"caught", "peer"} if family == "torchvision" else {"caught"}
        if name in drawing:
            row = {key: value for key, value in row.items() if key not in ("draw", "memory")}
        elif drawing or wanted <= row.keys() or ("failure" in row and not again):
            continue
        row = isolated(family, name, row, limit)
        with MEASURED.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(family, name, row.get("failure", "supported"), flush=True)
        write()


def write() -> None:
    """Write the table."""
    measured = rows()
    supported = {}
    for family in ("torchvision", "timm"):
        own = [row for row in measured.values() if row["family"] == family]
        total = len(names([family]))
        supported[family] = f"{sum('saved' in row for row in own)} of {total}"
        if len(own) < total:
            supported[family] += f" ({total - len(own)} not measured yet)"
    lines = [
        line(row) for row in sorted(measured.values(), key=lambda row: (row["family"] != "torchvision", row["name"]))
    ]
    header = HEADER.format(
        **supported,
        corrupted=CORRUPTED,
        patience=PATIENCE,
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__.split("+")[0],
    )
    TABLE.write_text(header + "\n".join(lines) + "\n" + FOOTER)


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    name = row["name"] if row["family"] == "torchvision" else f"timm: {row['name']}"
    failure = row.get("failure", "not measured yet").replace("|", "/")
    shares = {key: " / ".join(f"{value:.2f}" for value in row.get(key, ())) for key in ("fit", "saved")}
    megabytes = row.get("memory", 0) * row.get("params", 0) * 4 / 1e6
    cells = [
        name,
        f"{row['params'] / 1e6:.1f}" if "params" in row else "",
        "yes" if "fit" in row else f"no: {failure}",
        shares["fit"],
        "yes" if "saved" in row else f"no: {failure}" if "fit" in row else "",
        f"{row['caught']} of {CORRUPTED}" if "caught" in row else "",
        shares["saved"],
        f"{row['draw']:.1f} x" if "draw" in row else "",
        "" if "peer" not in row else "fails" if row["peer"] is None else f"{row['peer']:.2f} x",
        f"{megabytes:.1f} MB ({row['memory']:.0%})" if "memory" in row else "",
    ]
    return f"| {' | '.join(cells)} |"


def status(field: str) -> int:
    """A figure of this process, in bytes (Linux)."""
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(field + ":"):
            return int(text.split()[1]) * 1024
    raise RuntimeError(f"This kernel's /proc/self/status has no {field}.")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure which architectures are supported.")
    parser.add_argument("--family", choices=("torchvision", "timm"), help="only these networks")
    parser.add_argument("--limit", type=float, default=900, help="seconds per network (default: 900)")
    parser.add_argument("--again", action="store_true", help="measure what failed once more")
    parser.add_argument(
        "--drawing", nargs="+", default=[], help="measure anew what drawing costs, of these networks only"
    )
    parser.add_argument("--choose", action="store_true", help="find the smallest network of each timm module first")
    options = parser.parse_args()
    if options.choose or not SMALLEST.exists():
        choose()
    sweep(
        [options.family] if options.family else ["torchvision", "timm"], options.limit, options.again, options.drawing
    )
    write()


if __name__ == "__main__":
    main()
