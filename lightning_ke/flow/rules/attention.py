"""Attention: every head stays, and all of them keep the same share of their channels.

The two products of an attention already join the heads (a product of batches needs equal matrices, see `contraction`).
What is left is to join the width of all heads side by side with the width of what enters the attention: code such as
``x.reshape(B, N, C)`` takes ``C`` from its input.
"""

from __future__ import annotations

import numpy as np

from lightning_ke.flow.labels import Layer
from lightning_ke.flow.registry import Operation
from lightning_ke.flow.variables import Channels


def join_heads_with_stream(op: Operation, merged: Layer) -> None:
    """Join the channels of the heads, side by side again, with those of the running module's input of the same width.

    Args:
        op: The reshape that put the heads side by side.
        merged: The layer that labels its result.
    """
    if len(merged.dims) != 1:
        return
    heads = merged.flat
    if not isinstance(heads, range):  # code that folds windows repeats each channel, next to itself
        heads = heads[np.append(True, heads[1:] != heads[:-1])]
    _join_with_source(op, heads)
    for tensor in op.tracer.entering():
        for dim in (tensor.dim() - 1, 1):
            if 0 < dim < tensor.dim() and tensor.shape[dim] == len(heads):
                stream = op.channels(tensor, dim)
                op.meet(heads, stream)
                return


def _join_with_source(op: Operation, heads: Channels) -> None:
    """Join the heads with what their values were computed from, if that has their width."""
    first = int(heads[0])
    for start, (end, entering) in op.tracer.sources.items():
        if start <= first <= end and entering is not None and len(entering) == len(heads):
            op.variables.join(heads, entering)
