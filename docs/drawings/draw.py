"""Draws the pictures of the concepts page: the mask of a toy network, and the clock of a run.

Usage: python docs/drawings/draw.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from torch import nn

import lightning_ke as ke
from lightning_ke.tasks.schedules import cosine_with_warmup

# Readable on a light and on a dark page; text is kept as text, and the same picture is the same file.
FIT, RESET, INK = "#2a9d8f", "#e9a03b", "#808080"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning-ke",
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": INK,
}


class Toy(nn.Module):
    """Three channels in, a shortcut, five classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify."""
        x = self.conv1(x).relu()
        x = x + self.conv2(x).relu()
        return self.fc(x.mean((2, 3)))


def draw_kernels(axes: Axes, title: str, member: torch.Tensor) -> None:
    """One square for each kernel, filters downwards, coloured by what the mask says of it."""
    fit = member.flatten(2).all(2) if member.dim() > 2 else member
    filters, kernels = fit.shape
    for row in range(filters):
        for column in range(kernels):
            colour = FIT if fit[row, column] else RESET
            axes.add_patch(Rectangle((column + 0.06, row + 0.06), 0.88, 0.88, color=colour, lw=0))
    axes.set(xlim=(0, 6), ylim=(6, 0), aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("reads channel")
    axes.set_xticks([0.5 + i for i in range(kernels)], range(1, kernels + 1))
    axes.set_yticks([0.5 + i for i in range(filters)], range(1, filters + 1))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def mask(path: Path) -> None:
    """The mask of the toy network, kernel by kernel."""
    toy = Toy()
    drawn = ke.draw_mask(toy, split="kels", rate=0.5, example_input=torch.zeros(1, 3, 8, 8))
    figure, axes = plt.subplots(1, 3, figsize=(8, 3.6), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.92))  # the page's font may be larger than the one measured here
    titles = {"conv1": "conv1\nreads the image", "conv2": "conv2\nadded to its input", "fc": "fc\nfive classes"}
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        draw_kernels(axis, title, drawn[f"{name}.weight"])
    axes[0].set_ylabel("makes channel")
    handles = [Patch(color=FIT, label="fit hypothesis: never redrawn"), Patch(color=RESET, label="reset hypothesis")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def clock(path: Path, generations: int = 3, epochs: int = 12) -> None:
    """Learning rate, boundaries and checkpoints over three generations."""
    rates: list[float] = []
    for _ in range(generations):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = cosine_with_warmup(optimizer, epochs, warmup=2)
        for _ in range(epochs):
            rates += schedule.get_last_lr()
            optimizer.step()
            schedule.step()
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axes.step(range(len(rates) + 1), [*rates, rates[-1]], where="post", color=INK, lw=1.5)
    for number in range(generations):
        start, end = number * epochs, (number + 1) * epochs
        axes.axvspan(start, end, color=FIT if number % 2 else RESET, alpha=0.12, lw=0)
        axes.text((start + end) / 2, 1.34, f"generation {number + 1}", ha="center", weight="bold")
        axes.annotate(
            "close: scores, record",
            (end, 0.02),
            (end - 0.4, 1.19),
            ha="right",
            fontsize=8,
            arrowprops={"arrowstyle": "->", "color": FIT, "lw": 1.2},
        )
        if number:
            axes.annotate(
                "redraw",
                (start, 0.55),
                (start + 2.2, 0.85),
                fontsize=8,
                arrowprops={"arrowstyle": "->", "color": RESET, "lw": 1.2},
            )
    axes.plot([epoch + 1 for epoch in range(len(rates))], [-0.12] * len(rates), "|", color=INK, ms=7)
    axes.text(0, -0.29, "each mark: an epoch ends, a checkpoint may be written", fontsize=8)
    axes.set(xlim=(0, len(rates)), ylim=(-0.34, 1.46), xlabel="epoch", yticks=[])
    axes.set_ylabel("learning rate")
    axes.set_xticks(range(0, len(rates) + 1, epochs))
    axes.spines[["top", "right", "left"]].set_visible(False)
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a picture without the time at which it was drawn."""
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def main(folder: Path) -> None:
    """Draw all pictures."""
    with mpl.rc_context(STYLE):
        mask(folder / "mask.svg")
        clock(folder / "clock.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
