"""The peer that prunes: torch-pruning's weight magnitudes, half of the channels of every layer."""

from __future__ import annotations

from pathlib import Path

import torch
import torch_pruning
from torch import nn

from lightning_ke.app.trained import trained_backbone


def prune(checkpoint: Path, out: Path) -> Path:
    """Prune a trained network to half its channels.

    Args:
        checkpoint: A checkpoint of `ke-train`.
        out: Where the pruned network's weights are written.

    Returns:
        That file; its weights fit the same network built at half the width.
    """
    network = trained_backbone(checkpoint)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    example = torch.zeros(1, first.in_channels, 64, 64)
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        network,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[head],  # all classes stay
    )
    pruner.step()
    torch.save(network.state_dict(), out)
    return out
