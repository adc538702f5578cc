"""Parameters that a forward uses although nothing that it returns depends on them.

Deep supervision is of that kind: some networks compute all of its heads in eval mode, too, and return what these say in
train mode only. Nothing of eval mode tells how many channels have to leave such a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import copy_inputs, quiet_world, tensors_in
from lightning_ke.flow.running import train_whole
from lightning_ke.flow.tracer import Tracer
from lightning_ke.flow.variables import PINNED, read

if TYPE_CHECKING:
    from lightning_ke.splits.base import Call


def lead_nowhere(tracer: Tracer) -> bool:
    """Whether channels are made that no layer takes in and no call returns, as in a silent layer.

    Args:
        tracer: A trace that has run.
    """
    roots = tracer.variables.roots()
    used = np.zeros(len(roots), dtype=np.bool_)
    used[roots[PINNED]] = True
    for channels in tracer.taken_in:
        used[read(roots, channels)] = True
    return not all(used[read(roots, producer)].all() for producer in tracer.producers)


def silent_parameters(
    model: nn.Module, calls: Sequence[Call], convert: Callable[[Tensor], Tensor], *, train: bool
) -> frozenset[str]:
    """Canonical names of the parameters on which nothing depends that the calls return, as autograd knows it.

    Args:
        model: The network; it stays as it is.
        calls: How it is run.
        convert: Makes the copy of one tensor.
        train: Run it in train mode, but for layers that drop or average.

    Returns:
        The names; none if the network does not run.
    """
    network = private_copy(naming.unwrap(model), convert)
    parameters, modules = dict(naming.named_parameters(network)), dict(naming.named_modules(network))
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    (train_whole if train else nn.Module.eval)(network)
    with suppress(Exception):  # code that writes to weights, or wants targets: nothing is known then
        reached: set[int] = set()
        for call in calls:
            args, kwargs = copy_inputs((tuple(call.args), dict(call.kwargs)), convert)
            with quiet_world(), torch.enable_grad():
                output = modules[call.module](*args, **kwargs)
            reached |= _behind(tensors_in(output))
        return frozenset([name for name, parameter in parameters.items() if id(parameter) not in reached])
    return frozenset()


def _behind(outputs: Iterable[Tensor]) -> set[int]:
    """The identities of the tensors that outputs depend on."""
    outputs = list(outputs)
    found, seen = {id(output) for output in outputs}, set()
    nodes = [output.grad_fn for output in outputs]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.add(id(getattr(node, "variable", None)))  # where a parameter enters
        nodes += [before for before, _ in node.next_functions]
    return found
