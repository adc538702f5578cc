"""The table of rules: how channel labels pass through each kind of operation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_ke.flow.labels import Labels, Layer, distinct_rows, place
from lightning_ke.flow.leaves import Leaf
from lightning_ke.flow.variables import Channels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lightning_ke.flow.tracer import Tracer

Operator = torch._ops.OpOverload | torch._ops.OpOverloadPacket
Rule = Callable[["Operation"], None]

_RULES: dict[str, Rule] = {}
_NONE: frozenset[int] = frozenset()


class FlowError(RuntimeError):
    """Channels could not be followed through a network; the message says where and what to do."""


def register_rule(*operators: Operator | str) -> Callable[[Rule], Rule]:
    """Say how channels flow through an operation.

    The decorated function gets an `Operation`, joins the variables that must share their fate and gives each output its
    labels (`Operation.label`); an output without labels is always kept.

    Args:
        operators: Operators of ``torch.ops``: one overload (``torch.ops.aten.add.Tensor``) or all of them
            (``torch.ops.aten.add``). Those of a library that need not be there are named (``"torchvision.roi_align"``).

    Example:
        >>> @register_rule(torch.ops.aten.frexp)
        ... def frexp(op: Operation) -> None:
        ...     for output in op.outputs:
        ...         op.label(output, op.labels(op.args[0]).layers)
    """
    names = [_name(operator) for operator in operators]

    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return register


def find_rule(operator: torch._ops.OpOverload) -> Rule | None:
    """The rule of an operation: its own, else that of all its overloads, else that of its out-of-place form.

    Args:
        operator: The overload that was called.
    """
    packet = _name(operator.overloadpacket)
    own = _RULES.get(_name(operator)) or _RULES.get(packet)
    if own is None and packet.endswith("_") and not packet.endswith("__"):
        own = _RULES.get(packet[:-1])
    return own


@cache
def _name(operator: Operator | str) -> str:
    return str(operator)


def _variety(layer: Layer) -> int:
    """How many variables a layer has."""
    return len(layer.entries) if isinstance(layer.entries, range) else len(np.unique(layer.entries))


class Operation:
    """One operation of a traced forward, as a rule sees it.

    Args:
        operator: The operator that was called.
        args: Its positional arguments; tensors have shapes, but no values that a rule may look at.
        kwargs: Its keyword arguments.
        outputs: The tensors it returned, in order.
        tracer: The trace that it belongs to.
    """

    __slots__ = ("args", "kwargs", "operator", "outputs", "tracer", "variables")

    def __init__(
        self,
        operator: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        outputs: Sequence[Tensor],
        tracer: Tracer,
    ) -> None:
        self.operator = operator
        self.args = args
        self.kwargs = kwargs
        self.outputs = outputs
        self.tracer = tracer
        self.variables = tracer.variables

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by position or by name.

        Args:
            position: Its position in the operator's schema.
            name: Its name in the operator's schema.
            default: Its value if it is not given.
        """
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    def labels(self, tensor: Tensor) -> Labels | Leaf:
        """The labels of an argument.

        Args:
            tensor: One of the operation's tensors.
        """
        return self.tracer.labels(tensor)

    def label(
        self, output: Tensor, layers: Iterable[Layer], *, like: Sequence[Tensor] = (), heads: Channels | None = None
    ) -> None:
        """Give an output its labels.

        Args:
            output: One of the operation's outputs.
            layers: Its layers.
            like: The arguments that it was computed from; it counts as a weight if they all do.
            heads: The `Labels.heads` of an output that belongs to an attention.
        """
        weight = fixed = bool(like)
        for tensor in like:
            labels = self.tracer.labels(tensor)
            fixed = fixed and labels.fixed
            if not labels.weight:
                weight = fixed = False
                break
        self.tracer.label(output, Labels(tuple(layers), False, weight, fixed, _NONE, heads))

    def run(self, layer: Layer) -> Any:
        """Apply the operation itself to the variables of all positions of its first argument.

        Args:
            layer: A layer of the first argument.
        """
        return self.operator(layer.over(self.args[0]), *self.args[1:], **self.kwargs)

    def uniform(self, layer: Layer, dim: int) -> Channels:
        """Reduce a layer to one dimension: whatever else it varies along must share its fate.

        Args:
            layer: A layer that carries channels along `dim`.
            dim: The dimension that stays.

        Returns:
            Variables of shape (size of `dim`,).
        """
        if layer.dims == (dim,):
            return layer.flat
        order = (*(other for other in range(len(layer.shape)) if other != dim), dim)
        rows = distinct_rows(layer.array.transpose(order).reshape(-1, layer.shape[dim]))
        if len(rows) > 1:
            self.variables.join(rows[:1], rows[1:])
        first: Channels = rows[0]
        return first

    def channels(self, tensor: Tensor, dim: int) -> Channels | None:
        """The variables of a tensor along one dimension, or None if that dimension is always kept.

        Args:
            tensor: One of the operation's arguments.
            dim: A dimension of it, not negative.
        """
        labels = self.tracer.labels(tensor)
        return labels.channels(dim) if isinstance(labels, Leaf) else self.along(labels.layers, dim)

    def along(self, layers: Iterable[Layer], dim: int) -> Channels | None:
        """The variables that some layers carry along one dimension, or None if that dimension is always kept.

        Args:
            layers: Layers of one tensor.
            dim: A dimension of it, not negative.
        """
        several = [layer for layer in layers if layer.shape[dim] > 1]
        if not several:
            return None
        finest = several[0]
        if len(several) > 1:
            # Dimensions that a reshape merged (experts and their channels): that with the most channels is chosen from.
            finest = max(several, key=_variety)
            self.pin(layer for layer in several if layer is not finest)
        entries = finest.entries
        return entries if isinstance(entries, range) else self.uniform(finest, dim)

    def see_image(self, layers: Iterable[Layer]) -> None:
        """Note that the first of an argument's dimensions after the batch are channels, the others places.

        Args:
            layers: Its layers.
        """
        for layer in layers:
            if id(layer) in self.tracer.divided:
                self.tracer.stuck_images.add(self.tracer.divided[id(layer)][0])

    def pin(self, layers: Iterable[Layer]) -> None:
        """Keep all that some layers label.

        Args:
            layers: Layers of one tensor.
        """
        for layer in layers:
            self.variables.pin(layer.entries)

    def meet(self, left: Channels | None, right: Channels | None) -> None:
        """Two runs of channels lie on each other: join them, or pin the one that meets an uncut dimension.

        Args:
            left: Variables of shape (size,), or None if that side is always kept.
            right: Variables of shape (size,), or None if that side is always kept.
        """
        if left is not None and right is not None:
            self.variables.join(left, right)
        else:
            for side in (left, right):
                if side is not None:
                    self.variables.pin(side)

    def contract(self, left: Tensor, left_dim: int, right: Tensor, right_dim: int) -> None:
        """Two dimensions are summed over together: their channels lie on each other.

        Args:
            left: One factor.
            left_dim: Its dimension.
            right: The other factor.
            right_dim: Its dimension.
        """
        self.take_in(self.channels(left, left_dim))
        # One value everywhere (an initial hidden state) takes whatever size the other side has.
        one, other = self.labels(left), self.labels(right)
        if not (one.uniform or other.uniform or left_dim in one.loose or right_dim in other.loose):
            self.meet(self.channels(left, left_dim), self.channels(right, right_dim))

    def take_in(self, variables: Channels | None) -> None:
        """Note that channels are summed over: something is made of them.

        Args:
            variables: Their variables, of shape (number of channels,), or None if they are always kept.
        """
        if variables is not None:
            self.tracer.taken_in.append(variables)

    def read(self, tensor: Tensor | None, lies_on: Mapping[int, Channels | None]) -> None:
        """Let dimensions of a parameter or buffer share the fate of channels that were made before.

        Args:
            tensor: The parameter or buffer (a norm's statistic, the inner dimension of a weight), or None.
            lies_on: For each such dimension its variables, of shape (size,), or None if those are always kept.
        """
        if tensor is None or self.takes(tensor, lies_on, reads=True) or self.labels(tensor).uniform:
            return
        for dim, variables in lies_on.items():
            self.meet(self.channels(tensor, dim), variables)

    def follow(self, bias: Tensor | None, variables: Channels | None) -> None:
        """Let a bias share the fate of the channels that the weight before it makes, and any factor on them.

        Args:
            bias: The bias, of one dimension, or None.
            variables: Variables of the same shape, or None if those channels are always kept.
        """
        if bias is None or self.takes(bias, {0: variables}) or self.labels(bias).uniform:
            return
        own = self.channels(bias, 0)
        self.meet(own, variables)
        if own is not None and variables is not None:
            self.tracer.companions.append((own, variables))

    def takes(self, tensor: Tensor, lies_on: Mapping[int, Channels | None], *, reads: bool = False) -> bool:
        """Let a parameter or buffer have the very variables of what it lies on, if it has none yet.

        Args:
            tensor: An argument.
            lies_on: For each of its dimensions that lies on channels which were made before, their variables, of shape
                (size,), or None if those are always kept.
            reads: False for a bias: a factor on those channels has to be put on it as well.

        Returns:
            False if it has others already or may not be cut, so that they have to be joined.
        """
        leaf = self.tracer.labels(tensor)
        if not isinstance(leaf, Leaf) or leaf.settled:
            return False
        leaf.settle(lies_on)
        if reads:
            leaf.reads = tuple(lies_on)
        return True

    def accompany(self, parameter: Tensor, tensor: Tensor) -> None:
        """Note that a parameter is added to a tensor, so that a factor on one must be put on the other as well.

        Args:
            parameter: A bias.
            tensor: What it is added to.
        """
        for one, other in itertools.product(self.labels(parameter).layers, self.labels(tensor).layers):
            if one.size == other.size:
                self.tracer.companions.append((one.flat, other.flat))

    def produce(self, variables: Channels, weight: Tensor, entering: Channels | None) -> None:
        """Note that a weight's output channels were computed here: they are what a rate is applied to.

        Args:
            variables: Variables of shape (number of output channels,).
            weight: The weight, or what was computed from parameters alone.
            entering: Variables of the channels that it was computed from, or None if they are always kept.
        """
        if self.labels(weight).fixed:
            self.variables.pin(variables)
        elif self.labels(weight).weight:
            self.tracer.producers.append(variables)
            self.tracer.sources[int(variables[0])] = (int(variables[-1]), entering)

    def spread(self, variables: Channels | None, dim: int, output: Tensor) -> list[Layer]:
        """The layers of an output whose dimension `dim` carries the given variables.

        Args:
            variables: Variables of shape (size of `dim`,), or None.
            dim: The dimension of `output`.
            output: One of the operation's outputs.
        """
        return [] if variables is None or len(variables) == 1 else [place(variables, dim, output.dim())]
