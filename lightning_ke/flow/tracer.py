"""The mode under which a network is traced: channel labels travel beside the tensors of every operation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_ke.flow import rules as rules  # fills the table of rules
from lightning_ke.flow.dry import run_known, tensors
from lightning_ke.flow.kinds import Kind, as_number, kind_of
from lightning_ke.flow.labels import Labels, Layer, loosened, same_layers
from lightning_ke.flow.leaves import Leaf, replaced
from lightning_ke.flow.mode import OperationMode
from lightning_ke.flow.registry import FlowError, Operation
from lightning_ke.flow.sites import Groups, Size
from lightning_ke.flow.variables import Channels, Variables
from lightning_ke.flow.views import View, written

aten = torch.ops.aten

#: Operations that repeat a single entry as often as their code asks for.
_REPETITIONS = frozenset({aten.expand.default, aten.repeat.default})

#: Under which names a tensor of a private copy holds its labels, with the tracer that gave them, and its origin.
_LABELS, _VIEW = "_lightning_ke_labels", "_lightning_ke_view"
_NOTHING, _SPREADING = Labels(), Labels(uniform=True)
_UNLABELLED = (None, _NOTHING)


class Tracer(OperationMode):
    """Runs every operation of a forward and lets the labels of its inputs flow to its outputs.

    Args:
        variables: Where the joins are collected.
        whole_heads: Canonical names of the attentions that keep or drop whole heads.
        images: Canonical names of the modules that make images of flat vectors.
        filled: Canonical names of the modules that fill up channels by as many of one value as their code says.
    """

    def __init__(
        self,
        variables: Variables,
        whole_heads: frozenset[str] = frozenset(),
        images: frozenset[str] = frozenset(),
        filled: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        self.variables = variables
        self.whole_heads = whole_heads
        self.images = images
        self.filled = filled
        #: Modules that put channels of one value beside others, followed as if there were as many as anybody likes.
        self.filling: set[str] = set()
        #: Vectors that were divided into rows: the module, and the layer, by its identity.
        self.divided: dict[int, tuple[str, Layer]] = {}
        #: Modules that make images of flat vectors, of which each row is a place.
        self.stuck_images: set[str] = set()
        #: Channels that were divided into rows: the module, and the layer, by its identity.
        self.rows: dict[int, tuple[str, Layer]] = {}
        #: Modules that make one channel of each such row (maxout).
        self.reducing: set[str] = set()
        #: Of every attention the module, and the variables of the channels that its values have in each head.
        self.values: list[tuple[str, Channels]] = []
        #: Of those that keep or drop whole heads the module, and a variable of each head.
        self.heads: list[tuple[str, Channels]] = []
        self.producers: list[Channels] = []
        #: For each producer, by its first variable: its last one, and the variables that it was computed from.
        self.sources: dict[int, tuple[int, Channels | None]] = {}
        #: Channels that were summed over.
        self.taken_in: list[Channels] = []
        self.groups: list[Groups] = []
        self.sizes: list[Size] = []
        self.pieces: list[Layer] = []
        self.companions: list[tuple[Channels, Channels]] = []
        self.scalars: list[tuple[torch._ops.OpOverload, float, tuple[Layer, ...]]] = []
        #: Of every product of activations the layers that it summed over on its left, by its `Labels.heads`' first.
        self.summed: dict[int, tuple[Layer, ...]] = {}
        #: Canonical names of the modules whose code makes tensors of one value (first hidden states).
        self.makers: set[str] = set()
        self.modules: list[tuple[str, tuple[Any, ...]]] = []
        self.met: list[Leaf] = []
        self._kinds: dict[int, Kind] = {}  # by identity

    def __deepcopy__(self, memo: dict[int, Any]) -> Tracer:
        """Tensors know their tracer; code that copies one means the tensor alone."""
        return self

    @property
    def module(self) -> str:
        """Canonical name of the running module."""
        return self.modules[-1][0] if self.modules else ""

    @property
    def keeps_whole_heads(self) -> bool:
        """Whether the running module is an attention that keeps or drops whole heads."""
        return self.module in self.whole_heads

    def entering(self) -> list[Tensor]:
        """The tensors that entered the running module."""
        return tensors(self.modules[-1][1]) if self.modules else []

    def labels(self, tensor: Tensor) -> Labels | Leaf:
        """The labels of a tensor; one that was never labelled is always kept.

        Args:
            tensor: A tensor of the traced forward.
        """
        tracer, labels = tensor.__dict__.get(_LABELS, _UNLABELLED)
        return labels if tracer is self else _NOTHING

    def label(self, tensor: Tensor, labels: Labels | Leaf) -> None:
        """Label a tensor.

        Args:
            tensor: A tensor of the traced forward.
            labels: Its labels.
        """
        # The tensor itself holds its labels, so that both are gone as soon as the forward has no more use for it.
        vars(tensor)[_LABELS] = self, labels

    def relabel(self, tensor: Tensor, labels: Labels | Leaf, layers: Iterable[Layer]) -> None:
        """Label a tensor like another one, but with other layers.

        Args:
            tensor: A tensor of the traced forward.
            labels: Labels of the other tensor.
            layers: The layers.
        """
        self.label(tensor, replaced(labels, layers=tuple(layers)))

    def size(self, tensor: Tensor, layers: Sequence[Layer] | None = None, end: str = "") -> None:
        """Note that the running module's code asked for a shape that carries channels.

        Args:
            tensor: The tensor of that shape.
            layers: Its layers, by default those of its labels.
            end: As for `Size`.
        """
        found = self.labels(tensor).layers if layers is None else tuple(layers)
        if found:
            self.sizes.append(Size(self.module, tuple(tensor.shape), found, end))

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """See `OperationMode`."""
        kind = self._kinds.get(id(func)) or self._kinds.setdefault(id(func), kind_of(func))
        if kind.becomes is not None:
            return self._view_in_place(func, kind.becomes, args, kwargs)
        entering = tensors(args)
        if kwargs:
            entering += tensors(kwargs.values())
        result = self.execute(func, args, kwargs, entering, kind)
        outputs = [result] if isinstance(result, Tensor) else tensors((result,))
        if outputs:
            self._follow(kind, Operation(func, args, kwargs, outputs, self), entering)
            if kind.scaling and (number := as_number(args[1])) is not None:
                self.scalars.append((func, number, self._scaled(outputs[0])))
            if kind.view:
                for index, output in enumerate(outputs):
                    vars(output)[_VIEW] = View(args[0], func, args[1:], kwargs, None if output is result else index)
            elif kind.writes:
                self._write(args[0], outputs[0])
            self.finish(func, args, kwargs, outputs)
        return result

    def _view_in_place(
        self, func: torch._ops.OpOverload, view: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Tensor:
        """Let a tensor become a view of what it was, whose shape is known to a rule only until then."""
        tensor: Tensor = args[0]
        before = tensor.detach()
        vars(before).update(vars(tensor))
        after = self.operate(view, (before, *args[1:]), kwargs)
        func(*args, **kwargs)
        vars(tensor).update(vars(after))
        return tensor

    def _scaled(self, tensor: Tensor) -> tuple[Layer, ...]:
        """Layers on which a factor on a tensor can be put: its own, or those of the queries that made it (logits)."""
        labels = self.labels(tensor)
        if labels.layers or labels.heads is None or not len(labels.heads):
            return labels.layers
        return self.summed.get(int(labels.heads[0]), ())

    def finish(
        self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        """What a special trace does once an operation has run and its outputs are labelled: here nothing.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            outputs: The tensors it returned.
        """

    def execute(
        self,
        func: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        entering: Sequence[Tensor],
        kind: Kind,
    ) -> Any:
        """Run an operation.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            entering: The tensors among its arguments.
            kind: What is known of the operator.
        """
        return run_known(func, args, kwargs, entering, kind.shape)

    def _follow(self, kind: Kind, op: Operation, entering: Sequence[Tensor]) -> None:
        if not entering:
            for output in op.outputs:
                self.label(output, _SPREADING if kind.uniform else _NOTHING)
            if kind.uniform:
                self.makers.add(self.module)
            return
        if kind.uniform or not (self._enter(entering) or (kind.joins and self._takes_sizes(entering))):
            known = entering[:1] if kind.picks else entering
            self._label_whole(kind, op, [self.labels(tensor) for tensor in known])
            return
        if kind.rule is None:
            raise FlowError(
                f"Expected a rule for every operation that channels flow through, but there is none for `{op.operator}`"
                f" (called in {self.where()}). Register one with "
                f"`lightning_ke.flow.register_rule(torch.ops.{op.operator})`."
            )
        kind.rule(op)

    def _enter(self, tensors: Iterable[Tensor]) -> bool:
        """Whether any channels enter an operation."""
        carries = False
        for tensor in tensors:
            labels = self.labels(tensor)
            if isinstance(labels, Leaf):
                carries = carries or labels.carries
                if not labels.met:
                    labels.met = True
                    self.met.append(labels)
                continue
            for layer in labels.picked:
                self.variables.pin(layer.entries)
            carries = carries or bool(labels.layers)
        return carries

    def _takes_sizes(self, tensors: Sequence[Tensor]) -> bool:
        """Whether some tensors, but not all, hold one value and take whatever size others have."""
        return 0 < sum(self.labels(tensor).uniform for tensor in tensors) < len(tensors)

    def _label_whole(self, kind: Kind, op: Operation, known: Sequence[Labels | Leaf]) -> None:
        """Label the outputs of an operation that no channels enter."""
        labels = Labels(
            uniform=kind.uniform or (bool(known) and all(labels.uniform for labels in known)),
            weight=bool(known) and all(labels.weight for labels in known),
            fixed=bool(known) and all(labels.fixed for labels in known),
            heads=next((labels.heads for labels in known if labels.heads is not None), None),
            loose=loosened(op.args[0], op.outputs[0]) if op.operator in _REPETITIONS else frozenset(),
        )
        for output in op.outputs:
            self.label(output, labels)

    def _write(self, tensor: Any, output: Tensor) -> None:
        """A tensor was changed in place; one that code made itself has data, and the result is another tensor."""
        if isinstance(tensor, Tensor) and tensor is not output:
            self.label(tensor, self.labels(output))
            output = tensor
        if _VIEW in vars(output):
            self._write_back(output)

    def _write_back(self, tensor: Tensor) -> None:
        """A view was written to: the tensors behind it carry the new labels there."""
        view = vars(tensor)[_VIEW]
        own, new = self.labels(view.base), self.labels(tensor)
        if not own.layers and not new.layers:
            return
        if tensor.shape == view.base.shape and same_layers(own.layers, new.layers):
            return  # a weight that is clipped, say
        labels = written(view, own, new, tensor.shape, self.variables)
        if labels is None:
            for layer in (*own.layers, *new.layers):
                self.variables.pin(layer.entries)
            labels = replaced(own, layers=())
        self.label(view.base, labels)
        if _VIEW in vars(view.base):
            self._write_back(view.base)

    def across_groups(self, entering: Channels, inner: Channels | None, groups: int, width: int) -> Channels:
        """The channels that a transposed convolution in groups returns: its weight has none along all of them.

        Args:
            entering: Variables of the channels that enter it, group after group.
            inner: Variables of the channels that each group returns, or None if those are always kept.
            groups: The number of groups.
            width: How many channels each of them returns.
        """
        return self.variables.new(groups * width)

    def one_of_each_row(self, layer: Layer) -> Layer | None:
        """The channels that code makes of rows of channels, one of each: every row has the same share of its own.

        Args:
            layer: The layer of the rows, along the last dimension that carries channels.

        Returns:
            None, because there is always something left of each row.
        """
        if id(layer) in self.rows:
            self.reducing.add(self.rows[id(layer)][0])
        return None

    def mark(self) -> tuple[int, ...]:
        """A point in time to which `forget_since` can return."""
        kept = self.producers, self.groups, self.sizes, self.pieces, self.met
        return self.variables.mark(), *[len(noted) for noted in kept]

    def forget_since(self, mark: tuple[int, ...]) -> None:
        """Undo what was learned after `mark` was taken.

        Args:
            mark: What `mark` returned.
        """
        self.variables.forget_since(mark[0])
        del self.producers[mark[1] :], self.groups[mark[2] :], self.sizes[mark[3] :], self.pieces[mark[4] :]
        for leaf in self.met[mark[5] :]:
            leaf.forget()
        del self.met[mark[5] :]

    def where(self) -> str:
        """The running module, as error messages name it."""
        return f"module `{self.module}`" if self.module else "the network's own forward"
