"""Which architectures are supported: networks of torchvision, timm, MONAI and segmentation_models_pytorch.

Usage: python -m benchmarks.architectures [--family NAME] [--limit SECONDS] [--again] [--drawing NAME ...]

"Supported" means that the mask is drawn *and* the slim network is proved at every rate. Random weights, one process per
network. What has been measured is kept beside the table in a file of JSON lines, part by part, so that an interrupted
run goes on where it stopped; `--again` measures what failed once more, `--drawing` what drawing costs. Needs Linux,
the libraries of the families that are measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from typing import Any

import torch
from torch import nn

import lightning_ke as ke
from benchmarks.architectures.measuring import measure
from benchmarks.architectures.networks import FAMILIES, SMALLEST, choose
from benchmarks.architectures.page import MEASURED, rows, write

#: Bytes of memory that one network's process may use.
MEMORY = 14 * 2**30


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure which architectures are supported.")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="only these networks")
    parser.add_argument("--limit", type=float, default=900, help="seconds per network (default: 900)")
    parser.add_argument("--again", action="store_true", help="measure what failed once more")
    parser.add_argument(
        "--drawing", nargs="+", default=[], help="measure anew what drawing costs, of these networks only"
    )
    parser.add_argument("--choose", action="store_true", help="find the smallest network of each timm module first")
    options = parser.parse_args()
    if options.choose or not SMALLEST.exists():
        choose()
    sweep([options.family] if options.family else list(FAMILIES), options.limit, options.again, options.drawing)
    write()


def sweep(families: list[str], limit: float, again: bool, drawing: list[str]) -> None:
    """Measure what has not been measured yet, and of some networks what drawing costs; one process per network."""
    torch.set_num_threads(1)
    ke.draw_mask(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), rate=0.5, example_input=torch.zeros(1, 3, 4, 4))
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    for family, name in [(kind, name) for kind in families for name in FAMILIES[kind].names()]:
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


if __name__ == "__main__":
    main()
