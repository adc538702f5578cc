"""Attention: every head stays, and all of them keep the same share of their channels.

Where channels of a head cannot be dropped (rotary embeddings multiply all heads by one table of fixed width), heads are
kept or dropped as a whole instead: inside of such an attention labels say for each head, and not for its channels, what
is kept (`Tracer.whole_heads`). So are rows of which code makes one channel each (maxout), if it does not run otherwise.

The two products of an attention already join the heads (a product of batches needs equal matrices, see `contraction`).
What is left is to join the width of all heads side by side with the width of what enters the attention: code such as
``x.reshape(B, N, C)`` takes ``C`` from its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_ke.flow.labels import Layer, place, searched
from lightning_ke.flow.registry import Operation
from lightning_ke.flow.variables import PINNED, Channels, read

if TYPE_CHECKING:
    from lightning_ke.flow.tracer import Tracer


def divide_heads(op: Operation, layer: Layer) -> Layer:
    """Channels were divided into rows (heads, the sides of a shuffle): every row keeps the same positions.

    Args:
        op: The reshape that divided them.
        layer: The layer that labels its result.

    Returns:
        The layer that labels it from now on.
    """
    row = layer.dims[-1]
    flat = op.args[0].dim() == 2 and layer.dims[0] == 1
    if flat and op.tracer.module in op.tracer.images:
        return place(op.uniform(layer, 1), 1, len(layer.shape))
    if not op.tracer.keeps_whole_heads:
        op.uniform(layer, row)
        op.tracer.rows[id(layer)] = op.tracer.module, layer
        if flat:
            op.tracer.divided[id(layer)] = op.tracer.module, layer
        return layer
    channels = layer.array
    first = channels.take([0], row)
    op.variables.join(channels, first)
    op.tracer.heads.append((op.tracer.module, first.reshape(-1, layer.shape[layer.dims[-2]])[0]))
    return searched(first)


def note_values(op: Operation, values: Channels) -> None:
    """Note what a product of activations returns, if it is channels: the values of an attention, not its positions.

    Args:
        op: The product.
        values: The variables of its columns.
    """
    first = int(values[0])
    if any(start <= first <= end for start, (end, _) in op.tracer.sources.items()):
        op.tracer.values.append((op.tracer.module, values))


def stuck_heads(tracer: Tracer) -> frozenset[str]:
    """The attentions whose channels, or some of them, are all kept as long as every head keeps the same share of them.

    Args:
        tracer: A trace that has run.
    """
    stuck, roots = set(), tracer.variables.roots()
    for module, values in tracer.values:
        own = read(roots, values)
        if bool((own == own[0]).all() | (own == roots[PINNED]).any()):
            stuck.add(module)
    return frozenset(stuck)


def join_heads_with_stream(op: Operation, merged: Layer) -> None:
    """Join the channels of the heads, side by side again, with those of the running module's input of the same width.

    Args:
        op: The reshape that put the heads side by side.
        merged: The layer that labels its result.
    """
    if len(merged.dims) != 1:
        return
    heads = merged.flat
    if not isinstance(heads, range) and not op.tracer.keeps_whole_heads:
        # Code that folds windows repeats each channel, next to itself.
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
