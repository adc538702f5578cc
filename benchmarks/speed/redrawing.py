"""What a redraw costs, and what a mask holds in memory."""

from __future__ import annotations

import io

import torch
from torchvision.models import resnet50

import lightning_ke as ke
from benchmarks.speed.memory import fill, peak_memory, peak_of_redraw
from benchmarks.speed.timing import Row, interleaved, megabytes, milliseconds


def saved_bytes(mask: ke.Mask) -> int:
    """Size of the mask's state in a checkpoint."""
    buffer = io.BytesIO()
    torch.save(mask.state_dict(), buffer)
    return buffer.getbuffer().nbytes


def measure(rounds: int) -> list[Row]:
    """Redraw ResNet50 and fill it, taking turns; then measure memory and masks."""
    network = resnet50()
    kels = ke.draw_mask(network, "kels", 0.5, torch.zeros(1, 3, 224, 224))
    wels = ke.draw_mask(network, "wels", 0.5)
    times = interleaved(
        {
            "kels": lambda: ke.redraw(network, kels, generation=2),
            "wels": lambda: ke.redraw(network, wels, generation=2),
            "fill": lambda: fill(network),
        },
        rounds,
    )
    weights = sum(parameter.nbytes for parameter in network.parameters())
    largest = max(
        sum(parameter.nbytes for parameter in module.parameters(recurse=False)) for module in network.modules()
    )
    rows = []
    for name in ("KELS", "WELS"):
        peak, peak_fill = peak_of_redraw(name.lower(), "resnet50"), peak_memory("fill", "resnet50")
        own = times[name.lower()]
        rows += [
            Row(
                f"redraw of ResNet50, {name}, r = 0.5",
                milliseconds(own),
                "`kaiming_uniform_` on every weight",
                milliseconds(times["fill"]),
                "at most 3 x",
                own <= 3 * times["fill"],
            ),
            Row(
                f"the same, peak of extra memory, {name}",
                megabytes(peak),
                f"`kaiming_uniform_` in place (weights: {megabytes(weights)}; largest module: {megabytes(largest)})",
                megabytes(peak_fill),
                "at most the largest module",
                peak <= largest,
            ),
        ]
    for name, mask, share in (("KELS", kels, 0.001), ("WELS", wels, 1.01 / 32)):
        rows += [
            Row(
                f"{name} mask of ResNet50 in memory (in a checkpoint: {megabytes(saved_bytes(mask))})",
                f"{megabytes(mask.nbytes)}, {mask.nbytes / weights:.3%} of the weights",
                "a float32 mask, as released",
                f"{megabytes(weights)}, 100 %",
                f"at most {share:.2%}",
                mask.nbytes <= share * weights,
            )
        ]
    return rows
