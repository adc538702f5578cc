"""Labels that only some examples have."""

from __future__ import annotations

from torch import Tensor

#: Label of a node that a part knows nothing of; the cross-entropy ignores it.
UNKNOWN = -100


def known_only(labels: Tensor, nodes: Tensor) -> Tensor:
    """Labels of some nodes; all others are unknown.

    Args:
        labels: Of shape (nodes,).
        nodes: A bool tensor of the same shape.

    Example:
        >>> import torch
        >>> known_only(torch.tensor([3, 4]), torch.tensor([True, False]))
        tensor([   3, -100])
    """
    return labels.masked_fill(~nodes, UNKNOWN)
