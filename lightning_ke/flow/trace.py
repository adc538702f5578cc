"""What the flow learns of a network: one forward with channel labels travelling beside its tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_ke import naming
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import copy_inputs, quiet_world, tensors_in, with_data, without_data
from lightning_ke.flow.labels import Layer
from lightning_ke.flow.leaves import Leaf, label_leaves
from lightning_ke.flow.registry import FlowError
from lightning_ke.flow.rules.attention import stuck_heads
from lightning_ke.flow.running import running_modules, train_whole
from lightning_ke.flow.silent import lead_nowhere, silent_parameters
from lightning_ke.flow.sites import Groups, Size
from lightning_ke.flow.tracer import Tracer
from lightning_ke.flow.variables import Channels, Variables
from lightning_ke.sharding import has_shards

if TYPE_CHECKING:
    from lightning_ke.splits.base import Call

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trace:
    """What the flow learned from running a network.

    Args:
        variables: The joined variables.
        shapes: Shape of each parameter and buffer.
        leaves: Every parameter and buffer, with its variables per dimension.
        producers: The output variables of every convolution, matrix product and embedding, in the order of their run.
        groups: The grouped convolutions and norms.
        sizes: The shapes with channels that modules' code asked for.
        pieces: Layers of parts that were sliced out of a tensor.
        companions: Variables of added parameters, and of what they were added to.
        scalars: Multiplications by a number: operator, number, layers of the result.
        unreached: Canonical names of parameters that no run reached.
        train_only: Canonical names of parameters that train mode alone reached or let have a say.
        whole_heads: The heads of attentions that keep or drop whole ones: module, a variable of each head.
        stuck_heads: Canonical names of the attentions of whose heads channels are fixed.
        stuck_images: Canonical names of the modules that make images of vectors, followed as if they made heads.
        reducing: Canonical names of the modules that make one channel of several, followed as if those were a head's.
        filling: Canonical names of the modules that fill up channels by others of one value.
    """

    variables: Variables
    shapes: Mapping[str, tuple[int, ...]]
    leaves: Mapping[str, Leaf]
    producers: Sequence[Channels]
    groups: Sequence[Groups]
    sizes: Sequence[Size]
    pieces: Sequence[Layer]
    companions: Sequence[tuple[Channels, Channels]]
    scalars: Sequence[tuple[torch._ops.OpOverload, float, tuple[Layer, ...]]]
    unreached: tuple[str, ...]
    train_only: tuple[str, ...]
    whole_heads: Sequence[tuple[str, Channels]]
    stuck_heads: frozenset[str]
    stuck_images: frozenset[str]
    reducing: frozenset[str]
    filling: frozenset[str]


def trace(
    model: nn.Module,
    calls: Sequence[Call],
    target: str | None = None,
    whole_heads: frozenset[str] = frozenset(),
    images: frozenset[str] = frozenset(),
    filled: frozenset[str] = frozenset(),
) -> Trace:
    """Follow the channels of a network through its calls: without data, or with data where its code looks at values.

    Args:
        model: The network; weights, buffers, random state, train or eval mode and hooks stay as they are.
        calls: How it is run.
        target: Canonical name of the submodule to which cutting is limited.
        whole_heads: Canonical names of the attentions that keep or drop whole heads.
        images: Canonical names of the modules that make images of flat vectors.
        filled: Canonical names of the modules that fill up channels to as many as their code says.

    Raises:
        FlowError: If an operation has no rule or the network could not be run.
    """
    try:
        return _trace(model, calls, target, Tracer(Variables(), whole_heads, images, filled), without_data)
    except FlowError:
        raise
    except Exception as error:
        _refuse_lazy(model)
        logger.info("Following channels with data, because the network does not run without (%s).", error)
        failed = error
    if has_shards(model):
        raise FlowError(
            "Expected the sharded network to run without data, because no rank holds its weights whole, but that "
            f"failed ({failed}). Draw the mask in one process by `draw_mask` and give it as `FixedMask`."
        )
    try:
        return _trace(model, calls, target, Tracer(Variables(), whole_heads, images, filled), with_data)
    except FlowError:
        raise
    except Exception as error:
        _refuse_uncopyable(model)
        raise FlowError(
            f"Expected the network to run on the example input, but neither without data ({failed}) nor with data "
            f"({error}) did it. Pass an `example_input` that its forward accepts."
        ) from error


def _refuse_lazy(model: nn.Module) -> None:
    """Refuse parameters that have no shape yet, by name: why the network could not be copied."""
    for name, parameter in naming.named_parameters(model):
        if is_lazy(parameter):
            raise FlowError(
                f"Expected every parameter to be initialised, but `{name}` belongs to a lazy module. "
                "Run the network once on an example before its mask is drawn."
            )


def _refuse_uncopyable(model: nn.Module) -> None:
    """Refuse a network that holds what cannot be copied, whatever its parameters are."""
    try:
        private_copy(naming.unwrap(model), lambda tensor: tensor)
    except Exception as error:
        raise FlowError(
            f"Expected {type(model).__name__} to be copyable, so that its channels can be followed in a copy, but "
            f"copying it failed ({error}). Keep what cannot be copied (a lock, an open file, a generator) out of the "
            "module, or use a split that follows no channels, such as `wels`, with `score_fit=False`."
        ) from error


def _refuse_scripted(model: nn.Module, target: str | None) -> None:
    """Refuse modules that `torch.jit` has compiled, by name: their tensors cannot be told apart, nor cut."""
    for name, module in naming.named_modules(model):
        if isinstance(module, torch.jit.ScriptModule) and naming.is_below(name, target):
            raise FlowError(
                f"Expected modules that run in Python, but `{name or 'the network'}` was compiled by `torch.jit`. Use "
                "the module that it was compiled from, or choose a `target` without it."
            )


def _refuse_other_numbers(parameters: Mapping[str, Tensor]) -> None:
    """Refuse parameters that have no channels to follow, by name."""
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise FlowError(
                f"Expected every parameter to hold real floating-point numbers, but `{name}` is {parameter.dtype}. "
                "Make it a buffer, or keep its module out by `target`."
            )


def _trace(
    model: nn.Module,
    calls: Sequence[Call],
    target: str | None,
    tracer: Tracer,
    convert: Callable[[Tensor], Tensor],
) -> Trace:
    _refuse_scripted(model, target)
    network = private_copy(naming.unwrap(model), convert)
    modules = dict(naming.named_modules(network))
    parameters = dict(naming.own_parameters(modules.items()))
    _refuse_other_numbers(parameters)
    held = {**parameters, **dict(naming.own_buffers(modules.items()))}
    leaves = label_leaves(tracer, held, target)
    if any(module.training for module in modules.values()):
        network.eval()
    run_calls(tracer, modules, calls, convert)
    scalars = list(tracer.scalars)
    unreached = [name for name in parameters if not leaves[name].met]
    silent = silent_parameters(model, calls, convert, train=False) if lead_nowhere(tracer) else frozenset()
    silent = silent.difference(unreached)
    train_only: tuple[str, ...] = ()
    if unreached or silent:
        # Auxiliary heads and the noise of weights run, or are heard of, in train mode only.
        train_whole(network)
        before = tracer.mark()
        try:
            run_calls(tracer, modules, calls, convert)
        except Exception:  # whatever train mode needs (targets, a loss): what it would have reached stays whole
            tracer.forget_since(before)
        else:
            train_only = tuple([name for name in unreached if leaves[name].met])
            unreached = [name for name in unreached if not leaves[name].met]
            if silent:
                train_only += tuple(sorted(silent - silent_parameters(model, calls, convert, train=True)))
    return Trace(
        tracer.variables,
        {name: leaf.shape for name, leaf in leaves.items()},
        leaves,
        tracer.producers,
        tracer.groups,
        tracer.sizes,
        tracer.pieces,
        tracer.companions,
        scalars,
        tuple(unreached),
        train_only,
        tracer.heads,
        stuck_heads(tracer),
        frozenset(tracer.stuck_images),
        frozenset(tracer.reducing),
        frozenset(tracer.filling),
    )


def run_calls(
    tracer: Tracer, modules: Mapping[str, nn.Module], calls: Sequence[Call], convert: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Run a network's calls under a trace and pin what they return.

    Args:
        tracer: The trace.
        modules: The modules of a private copy, by canonical name.
        calls: How it is run.
        convert: Makes the copy of one input tensor.

    Returns:
        The tensors that the calls returned, in order.
    """
    outputs = []
    for call in calls:
        args, kwargs = copy_inputs((tuple(call.args), dict(call.kwargs)), convert)
        with quiet_world(), running_modules(modules, tracer), tracer:
            output = modules[call.module](*args, **kwargs)
        for tensor in tensors_in(output):
            outputs.append(tensor)
            labels = tracer.labels(tensor)
            for layer in (*labels.layers, *labels.picked):
                tracer.variables.pin(layer.entries)
    return outputs
