"""Measure how time and memory of masks, redraws and slim networks grow with the network, from 1 M to 1 B parameters.

Usage: python -m benchmarks.scale [--largest 1e9] [--out docs/results/scale.md]

Needs Linux (memory is read from /proc), matplotlib and torchvision. Each network is measured in a process of its own,
one after the other; the largest takes 4 GB, and at most twice that while it is measured. What is already in the CSV
file is not measured again, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

import lightning_ke as ke
from lightning_ke.slim import refresh

LAYERS = 16
#: Widths of the square layers: sixteen of them hold 1 M, 3.4 M, 10.5 M, 33.5 M, 105 M, 340 M and 1.07 B parameters.
WIDTHS = (256, 464, 808, 1448, 2560, 4608, 8192)
FIELDS = ("action", "width", "parameters", "weights_bytes", "seconds", "peak_bytes", "held_bytes")
# The allocator then gives every freed block back at once, so that resident memory is what is really held.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": "1"}

LABELS = {
    "mask-kels": "draw a KELS mask",
    "mask-wels": "draw a WELS mask",
    "redraw-kels": "redraw (KELS)",
    "redraw-wels": "redraw (WELS)",
    "slim": "cut the slim network out",
    "refresh": "bring the slim network up to date (each validation)",
    "fill": "fill every weight anew (for comparison)",
}


def build(width: int) -> nn.Module:
    """Sixteen square layers and nothing else."""
    return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))


def prepare(action: str, network: nn.Module, width: int) -> Callable[[], object]:
    """Make ready what an action needs, and return the action."""
    x = torch.zeros(1, width)
    verb, _, split = action.partition("-")
    if verb == "mask":
        return lambda: ke.draw_mask(network, split, 0.5, x)
    if verb == "redraw":
        mask = ke.draw_mask(network, split, 0.5, x)
        return lambda: ke.redraw(network, mask, generation=2)
    if verb == "fill":
        return lambda: [layer.reset_parameters() for layer in network]
    mask = ke.draw_mask(network, "kels", 0.5, x)
    if verb == "slim":
        return lambda: ke.extract_slim(network, mask, verify=False)
    slim = ke.extract_slim(network, mask, verify=False)
    structure = mask.structure
    assert structure is not None
    return lambda: refresh(slim, network, structure)


def measure_width(width: int) -> None:
    """Print the figures of one network, one line each."""
    torch.set_num_threads(1)
    network = build(width)
    for action in LABELS:
        # On a small network first, which loads whatever is loaded once.
        prepare(action, build(64), 64)()
        print(json.dumps(measure(action, network, width)), flush=True)


def measure(action: str, network: nn.Module, width: int) -> dict[str, Any]:
    """Run an action once."""
    run = prepare(action, network, width)
    gc.collect()
    start = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    begun = time.process_time()
    result = run()
    seconds = time.process_time() - begun
    return {
        "action": action,
        "width": width,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights_bytes": sum(parameter.nbytes for parameter in network.parameters()),
        "seconds": round(seconds, 4),
        "peak_bytes": max(_status("VmHWM") - start, 0),
        "held_bytes": result.nbytes if isinstance(result, ke.Mask) else 0,
    }


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"This kernel's /proc/self/status has no {field}.")


def measure_all(largest: float, table: Path) -> list[dict[str, Any]]:
    """Measure what the table does not hold yet, and add it line by line."""
    rows = read(table)
    known = {row["width"] for row in rows}
    for width in WIDTHS:
        if LAYERS * width**2 <= 1.1 * largest and width not in known:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.scale", "--width", str(width)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | _ENVIRONMENT)
            rows += [json.loads(line) for line in done.stdout.splitlines()]
            print(done.stdout, flush=True)
            write(rows, table)
    return rows


def read(table: Path) -> list[dict[str, Any]]:
    """The rows that have been measured."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return [
            {
                key: value if key == "action" else float(value) if key == "seconds" else int(value)
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def write(rows: list[dict[str, Any]], table: Path) -> None:
    """Write all rows."""
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def line(rows: list[dict[str, Any]], action: str, field: str) -> tuple[float, float]:
    """Power and value per parameter of the straight line through the logarithms, from 10 M parameters up."""
    points = [
        (math.log10(row["parameters"]), math.log10(row[field]))
        for row in rows
        if row["action"] == action and row["parameters"] > 5e6 and row[field] > 0
    ]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    last = max(points)
    return slope, 10 ** (last[1] - last[0])


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory over the number of parameters, and the straight line of proportion to it."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    sides = figure.subplots(1, 2)
    fields = (("seconds", "seconds (one core)", 1.0), ("peak_bytes", "extra memory at the peak, MB", 1e6))
    for axes, (field, label, unit) in zip(sides, fields, strict=True):
        for index, (action, name) in enumerate(LABELS.items()):
            own = [row for row in rows if row["action"] == action and row[field] > 0]
            if own:
                axes.plot(
                    [row["parameters"] for row in own],
                    [row[field] / unit for row in own],
                    label=name if field == "seconds" else None,
                    marker="osD^v<>"[index],
                    markersize=4,
                    linewidth=1.3,
                )
        sizes = sorted({row["parameters"] for row in rows})
        top = max(row[field] / unit for row in rows)
        axes.plot(
            sizes,
            [top * size / sizes[-1] for size in sizes],
            color="#808080",
            linestyle="--",
            label="in proportion to the parameters" if field == "seconds" else None,
        )
        axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel=label)
        axes.grid(color="#d9d9d9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


REPORT = """# Time and memory against the size of the network

Written by `python -m benchmarks.scale`; do not edit. The figures are in `scale.csv`. Networks of {layers} square linear
layers in float32, rate 0.5; each network in a process of its own, CPU time with torch held to one thread; memory is
what is resident above the start of each action. {cores} cores ({machine}) on which other programs ran, too (load
{load:.0f} when this was written), no GPU; Python {python}, torch {torch}.

![Time and memory over the number of parameters](scale.png)

## Seconds

{seconds}

"Power" is the slope of the straight line through the logarithms from 10 M parameters up: 1 is in proportion to the
size, 0 does not grow. The last column is of the largest network. Drawing a KELS mask follows the channels through one
forward without data: it grows with the number of layers and their width, not with their weights.

## Extra memory at the peak, as a share of the weights

{memory}

The last column: how many of its layers ({layer:,.0f} MB each) that is in the largest network. The slim network itself
is a quarter of the weights.

The mask that is kept: KELS {kels:,} bytes ({kels_share:.4f} % of the weights), WELS {wels:,} bytes ({wels_share:.3f} %;
one bit of 32 is 3.125 %).

## Checks on ResNet50

{checks}

## On paper: 10 B parameters on 64 ranks

Computed from the largest measurement, not run. FSDP2, float32, one hundred equal layers of {part:,.0f} MB; each rank
holds {shard:,.0f} MB of weights. Every rank draws every value and keeps its own part, so that none waits for another:
the time does not shrink with their number, the memory does.

- Mask: KELS {draw_kels:.1f} s (a hundred layers in place of {layers}) and some kilobytes on every rank. WELS
  {draw_wels:,.0f} s; a rank keeps its own bits, {bits:,.0f} MB, and holds {draw_peak:,.0f} MB more while it draws.
- Redraw, once a generation, on one core: {redraw_kels:,.0f} s (KELS) or {redraw_wels:,.0f} s (WELS), with
  {redraw_peak:,.0f} MB beside the shards: a rank's part of one layer as fresh values, as a mask, as what changes.
- Scores: every rank holds the slim network, at rate 0.5 a quarter of the weights: {slim:,.0f} GB. Each validation
  gathers {part:,.0f} MB at a time, {whole:,.0f} GB in all, and narrows them in {refresh:,.0f} s. Ranks without that
  memory take a smaller rate (0.25: {smaller:,.1f} GB) or `score_fit=False`.
- Checkpoint: a KELS mask as above, of a WELS mask one digest a parameter.
"""


def render(rows: list[dict[str, Any]], checks: list[str]) -> str:
    """The report as Markdown."""
    by = {(row["action"], row["width"]): row for row in rows}
    widths = sorted({row["width"] for row in rows})
    layer = 4 * widths[-1] ** 2
    parameters, ranks = 10e9, 64
    part = 4 * parameters / 100

    def last(action: str) -> dict[str, Any]:
        return by[action, widths[-1]]

    def at_ten(action: str) -> float:
        return float(last(action)["seconds"] / last(action)["parameters"] * parameters)

    def beside(*actions: str) -> float:
        return float(max(last(action)["peak_bytes"] for action in actions) / layer * part / 1e6)

    kels, wels = last("mask-kels"), last("mask-wels")
    return REPORT.format(
        layers=LAYERS,
        cores=os.cpu_count(),
        machine=platform.machine(),
        load=os.getloadavg()[2],
        python=platform.python_version(),
        torch=torch.__version__.split("+")[0],
        seconds=table_of(rows, lambda row: f"{row['seconds']:.3g}", ("power", "ns a parameter"), powers(rows)),
        memory=table_of(
            rows,
            lambda row: f"{100 * row['peak_bytes'] / row['weights_bytes']:.2g} %",
            ("layers",),
            {action: [f"{last(action)['peak_bytes'] / layer:.2f}"] for action in LABELS},
        ),
        layer=layer / 1e6,
        kels=kels["held_bytes"],
        kels_share=100 * kels["held_bytes"] / kels["weights_bytes"],
        wels=wels["held_bytes"],
        wels_share=100 * wels["held_bytes"] / wels["weights_bytes"],
        checks="\n".join(checks),
        part=part / 1e6,
        shard=4 * parameters / ranks / 1e6,
        draw_kels=kels["seconds"] * 100 / LAYERS,
        draw_wels=at_ten("mask-wels"),
        bits=parameters / 8 / ranks / 1e6,
        draw_peak=beside("mask-wels"),
        redraw_kels=at_ten("redraw-kels"),
        redraw_wels=at_ten("redraw-wels"),
        # Float32 values, bools, the same as integers, and what changes: 13 bytes for the 4 of a weight.
        redraw_peak=13 / 4 * part / ranks / 1e6,
        slim=parameters / 1e9,
        whole=4 * parameters / 1e9,
        refresh=at_ten("refresh"),
        smaller=parameters / 4 / 1e9,
    )


def powers(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """For each action the power of its line, and nanoseconds a parameter at the largest size."""
    found = {action: line(rows, action, "seconds") for action in LABELS}
    return {action: [f"{slope:.2f}", f"{1e9 * each:.3g}"] for action, (slope, each) in found.items()}


def table_of(
    rows: list[dict[str, Any]],
    cell: Callable[[dict[str, Any]], str],
    more: tuple[str, ...],
    extra: dict[str, list[str]],
) -> str:
    """One line an action, one column a size, and further columns."""
    by = {(row["action"], row["width"]): row for row in rows}
    widths = sorted({row["width"] for row in rows})
    rounded = (float(f"{LAYERS * width**2 / 1e6:.3g}") for width in widths)
    head = [*(f"{millions:,g} M" for millions in rounded), *more]
    lines = ["| | " + " | ".join(head) + " |", "|:--" + "|--:" * len(head) + "|"]
    for action, name in LABELS.items():
        cells = [cell(by[action, width]) if (action, width) in by else "" for width in widths]
        lines.append(f"| {name} | " + " | ".join([*cells, *extra[action]]) + " |")
    return "\n".join(lines)


def check_resnet50() -> list[str]:
    """What issue and README promise of a real network."""
    from torchvision.models import resnet50

    from benchmarks.speed.memory import peak_of_redraw

    network = resnet50()
    before = list(network.state_dict())
    weights = sum(parameter.nbytes for parameter in network.parameters())
    largest = max(sum(p.nbytes for p in module._parameters.values() if p is not None) for module in network.modules())
    masks = {split: ke.draw_mask(network, split, 0.5, torch.zeros(1, 3, 224, 224)) for split in ("kels", "wels")}
    lines = []
    for split, mask in masks.items():
        peak = peak_of_redraw(split, "resnet50")
        limit = 0.1 if split == "kels" else 100 / 32 + 1
        share = 100 * mask.nbytes / weights
        lines += [
            (
                f"- ResNet50, {split.upper()} mask: {share:.3f} % of the weights' bytes (at most {limit:.3g} %: "
                f"{'met' if share <= limit else '**missed**'})."
            ),
            (
                f"- ResNet50, {split.upper()} redraw: {peak / 1e6:.1f} MB above the start, the largest module has "
                f"{largest / 1e6:.1f} MB ({'met' if peak <= largest else '**missed**'})."
            ),
        ]
        ke.redraw(network, mask, generation=2)
    same = list(network.state_dict()) == before
    lines.append(
        f"- ResNet50's state_dict has the same entries after masks and redraws: {'yes' if same else '**no**'}."
    )
    return lines


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description="Measure what lightning_ke costs against the size of the network.")
    parser.add_argument("--largest", type=float, default=1.1e9, help="largest number of parameters (default: all)")
    parser.add_argument("--out", type=Path, default=Path("docs/results/scale.md"), help="file to write")
    parser.add_argument("--width", type=int, help="measure the network of this width in this process, write nothing")
    options = parser.parse_args()
    if options.width:
        measure_width(options.width)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = measure_all(options.largest, options.out.with_suffix(".csv"))
    plot(rows, options.out.with_suffix(".png"))
    options.out.write_text(render(rows, check_resnet50()))


if __name__ == "__main__":
    main()
