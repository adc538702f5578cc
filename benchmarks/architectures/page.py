"""The tables: what has been measured so far, as one line a network."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.architectures.measuring import CORRUPTED, PATIENCE
from benchmarks.architectures.networks import FAMILIES

MEASURED = Path("docs/results/architectures.jsonl")
TABLE = Path("docs/architectures.md")
HEADER = """# Supported architectures

Written by `python -m benchmarks.architectures`; do not edit. Every classification network of torchvision, the smallest
network of each module that `timm.list_modules()` names, and networks of libraries for other tasks, unmodified, with
random weights and 10 classes. **Supported: {counts}.**

- *mask*: a KELS mask was drawn at all three rates.
- *fit*: share of the weights that the mask keeps (0.09, 0.25 and 0.64 where all layers can be cut).
- *exact*: the slim network was proved to compute what the fit hypothesis computes inside the dense network, at all
  three rates. A network is supported if it has a mask and an exact slim network.
- *caught*: of {corrupted} weights spread over the network one kept slice each was changed in the slim network of rate
  0.5; as many of them the proof noticed.
- *ops saved*: share of the operations that the slim network saves.
- *draw*: processor time to draw a mask, relative to one forward of one image; the median of five pairs that took turns.
  The image has the network's own resolution, in the tables after the second the small one of all measurements.
- *peer*: the same time, relative to what torch-pruning takes for its dependency graph and the groups of
  channels read off it; the median of three pairs. It fails where it does not prune the network to half its channels
  within {patience} seconds, or where what it leaves does not run; only the networks of torchvision were tried.
- *memory*: peak of what drawing the mask needs beside the network, and as a share of the network's weights.

{cores} cores ({machine}), one thread, Python {python}, torch {torch}; the machine ran other programs as well.
"""
COLUMNS = (
    "network",
    "M weights",
    "mask",
    "fit 0.3 / 0.5 / 0.8",
    "exact",
    "caught",
    "ops saved 0.3 / 0.5 / 0.8",
    "draw",
    "peer",
    "memory",
)
FOOTER = """
## Where less is cut

Rotary embeddings multiply every head by one table of fixed width, and samvit's queries meet a table of positions, so
no channel of a head can be dropped in vit_tiny_patch16_dinov3, qwen3_vit, gemma4_vit, deepseek_vit and samvit. They
keep or drop whole heads instead, and the stream keeps the channels that stand beside them: of the 3 heads of
vit_tiny_patch16_dinov3 1, 2 and 3 at the three rates.

Where the mask keeps much more than the rate asks for:

- gmlp: the weights that mix positions are no channels and stay whole.
- regnet_x and regnet_y: their grouped convolutions keep whole groups, so about the rate of these weights and not its
  square (regnet_x_400mf at 0.3: 0.32 of them, and 0.10 of the weights of all other convolutions).
"""
#: Further reasons, each shown as soon as the network that it is about has been measured.
REASONS = {
    "PSPNet resnet18": """- PSPNet, and Unet with an EfficientNet: their forward leaves out the encoder's last layers,
  which stay.
""",
    "ViT": """- What a network returns is kept whole. MONAI's ViT and ViTAutoEnc return the tokens of every block,
  PatchDiscriminator what each of its layers makes.
""",
    "MAnet resnet18": """- MAnet's attention reads places as channels, so these are kept.
""",
    "HighResNet": """- HighResNet and MONAI's residual networks of type A (FlexibleUNet with resnet18) fill channels
  up by zeros to a number in their code.
""",
}


def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """What has been measured so far, by family and name; the last measurement counts."""
    if not MEASURED.exists():
        return {}
    return {(row["family"], row["name"]): row for row in map(json.loads, MEASURED.read_text().splitlines())}


def write() -> None:
    """Write the tables of all families of which anything has been measured."""
    measured = rows()
    tables, counts = [], []
    for family, (title, names, _) in FAMILIES.items():
        own = [row for row in measured.values() if row["family"] == family]
        if not own:
            continue
        total = len(names())
        count = f"{sum('saved' in row for row in own)} of {total} networks of {title}"
        counts.append(count if len(own) == total else f"{count} ({total - len(own)} not measured yet)")
        lines = [line(row) for row in sorted(own, key=lambda row: row["name"])]
        head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        tables.append("\n".join([f"\n## {title}\n", *head, *lines, ""]))
    header = HEADER.format(
        counts=", ".join(counts),
        corrupted=CORRUPTED,
        patience=PATIENCE,
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__.split("+")[0],
    )
    shown = {name for _, name in measured}
    reasons = [reason for name, reason in REASONS.items() if name in shown]
    TABLE.write_text("".join([header, *tables, FOOTER, *reasons]))


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    failure = row.get("failure", "not measured yet").replace("|", "/")
    shares = {key: " / ".join(f"{value:.2f}" for value in row.get(key, ())) for key in ("fit", "saved")}
    megabytes = row.get("memory", 0) * row.get("params", 0) * 4 / 1e6
    cells = [
        row["name"],
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
