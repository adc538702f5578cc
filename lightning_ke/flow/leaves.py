"""Parameters and buffers, where channels begin: their dimensions get variables when an operation first asks for them.

Most dimensions lie on channels that are there already: a convolution's inputs, a norm's statistics, a bias. They have
the very variables of those channels, so that they need none of their own and nothing has to be joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow.labels import Labels, Layer, place
from lightning_ke.flow.variables import Channels, Variables

if TYPE_CHECKING:
    from lightning_ke.flow.tracer import Tracer

_NOWHERE: Mapping[int, Channels | None] = {}


class Leaf:
    """The labels of a parameter or buffer (see `Labels`), and what a trace learns of it.

    Args:
        tensor: The parameter or buffer.
        inside: Whether it lies in the part of the network that may be cut.
        variables: Where its variables come from.

    Attributes:
        shape: The tensor's shape.
        carries: Whether it may be cut along any dimension.
        dims: Its variables per dimension, None along a dimension that is always kept.
        reads: The dimensions that lie on channels which other tensors make; a factor on those is put there.
        fixed: Whether it is a buffer.
        met: Whether it has entered an operation; all of it is kept if it never does.
        settled: Whether it has its variables.
    """

    __slots__ = ("_variables", "carries", "dims", "fixed", "met", "reads", "settled", "shape")

    uniform, weight, heads = False, True, None
    loose: frozenset[int] = frozenset()
    picked: tuple[Layer, ...] = ()

    def __init__(self, tensor: Tensor, inside: bool, variables: Variables) -> None:
        self.shape, self._variables = tensor.shape, variables
        self.carries = inside and max(self.shape, default=1) > 1
        # The type is asked first, because torch takes long to answer the other question.
        self.fixed = type(tensor) is not nn.Parameter and not isinstance(tensor, nn.Parameter)
        self.reads: tuple[int, ...] = ()
        self.forget()

    def forget(self) -> None:
        """Be as if it had never entered an operation."""
        self.met, self.settled = False, not self.carries
        self.dims: tuple[Channels | None, ...] = (None,) * len(self.shape)

    def settle(self, lies_on: Mapping[int, Channels | None] = _NOWHERE) -> None:
        """Give every dimension its variables.

        Args:
            lies_on: Those of dimensions that lie on channels which are there already.
        """
        new, self.settled = self._variables.new, True
        self.dims = tuple(
            [lies_on[dim] if dim in lies_on else new(size) if size > 1 else None for dim, size in enumerate(self.shape)]
        )

    def channels(self, dim: int) -> Channels | None:
        """Its variables along one dimension, or None if that dimension is always kept.

        Args:
            dim: The dimension.
        """
        if not self.settled:
            self.settle()
        return self.dims[dim]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """A layer for every dimension that has variables."""
        own = [(dim, self.channels(dim)) for dim in range(len(self.dims))]
        return tuple([place(variables, dim, len(own)) for dim, variables in own if variables is not None])


def replaced(labels: Labels | Leaf, **changes: Any) -> Labels:
    """Other labels that differ in some respects.

    Args:
        labels: The labels.
        changes: What `Labels` takes.
    """
    same = {name: getattr(labels, name) for name in Labels._fields if name not in changes}
    return Labels(**same, **changes)


def label_leaves(tracer: Tracer, held: Mapping[str, Tensor], target: str | None) -> dict[str, Leaf]:
    """Label every parameter and buffer of a private copy for the trace that will run it.

    Args:
        tracer: The trace that begins.
        held: The parameters and buffers, by canonical name.
        target: Canonical name of the submodule to which cutting is limited.

    Returns:
        Their labels.
    """
    leaves = {}
    for name, tensor in held.items():
        leaves[name] = leaf = Leaf(tensor, naming.is_below(name, target), tracer.variables)
        tracer.label(tensor, leaf)
    return leaves
