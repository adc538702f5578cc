"""What images cost on their way to the network, beside the training step that they are for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.speed.timing import Row, interleaved, milliseconds
from lightning_ke.app.backbones import torchvision_backbone
from lightning_ke.data import Flowers102DataModule

BATCHES = 8  # of one timed call


def measure(rounds: int) -> list[Row]:
    """Time batches and steps on Flowers-102 at 64 px; nothing without the images (KE_FLOWERS102 names their folder)."""
    if "KE_FLOWERS102" not in os.environ:
        return []
    data = Flowers102DataModule(os.environ["KE_FLOWERS102"], image_size=64, batch_size=32)
    data.setup("fit")
    endless = _endless(data)
    images, labels = next(endless)
    rows = []
    for width in (1.0, 0.5):
        network = torchvision_backbone("resnet18", num_classes=102, width=width)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

        def steps(network: Any = network, optimizer: Any = optimizer) -> None:
            for _ in range(BATCHES):
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()

        figures = interleaved({"data": lambda: [next(endless) for _ in range(BATCHES)], "step": steps}, rounds)
        share = figures["data"] / figures["step"]
        rows.append(
            Row(
                f"a batch of 32 images of Flowers-102 at 64 px (crops, mirrors, normalisation; `num_workers=0`), "
                f"{share:.1%} of the step",
                milliseconds(figures["data"] / BATCHES),
                f"the training step of ResNet18 at width {width:g} on it",
                milliseconds(figures["step"] / BATCHES),
                "under 10 %",
                share < 0.1,
            )
        )
    return rows


def _endless(data: Flowers102DataModule) -> Iterator[Any]:
    """Batch after batch, epoch after epoch."""
    while True:
        yield from data.train_dataloader()
