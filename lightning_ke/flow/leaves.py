"""Parameters and buffers, where channels begin: their dimensions get variables when an operation first asks for them.

Most dimensions lie on channels that are there already: a convolution's inputs, a norm's statistics, a bias. They have
the very variables of those channels, so that they need none of their own and nothing has to be joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow.labels import Labels, place
from lightning_ke.flow.variables import Channels, Variables

if TYPE_CHECKING:
    from lightning_ke.flow.tracer import Tracer


class Leaf:
    """A parameter or buffer of a traced network.

    Args:
        tensor: The parameter or buffer.
        inside: Whether it lies in the part of the network that may be cut.

    Attributes:
        carries: Whether it may be cut along any dimension.
        dims: Its variables per dimension, None along a dimension that is always kept.
        reads: The dimensions that lie on channels which other tensors make; a factor on those is put there.
        met: Whether it has entered an operation; all of it is kept if it never does.
        settled: Whether an operation has asked for its variables.
    """

    __slots__ = ("carries", "dims", "met", "reads", "settled")

    def __init__(self, tensor: Tensor, inside: bool) -> None:
        shape = tensor.shape
        self.carries = inside and any(size > 1 for size in shape)
        self.dims: tuple[Channels | None, ...] = (None,) * len(shape)
        self.reads: tuple[int, ...] = ()
        self.met = self.settled = False

    def settle(self, tensor: Tensor, variables: Variables, lies_on: Mapping[int, Channels | None]) -> None:
        """Give every dimension its variables.

        Args:
            tensor: The parameter or buffer.
            variables: Where new ones come from.
            lies_on: Those of dimensions that lie on channels which are there already.
        """
        self.settled = True
        sizes = enumerate(tensor.shape)
        self.dims = tuple(
            [lies_on[dim] if dim in lies_on else variables.new(size) if size > 1 else None for dim, size in sizes]
        )

    def labels(self, tensor: Tensor, variables: Variables) -> Labels:
        """The labels of the parameter or buffer.

        Args:
            tensor: The parameter or buffer.
            variables: Where variables come from if it has none yet.
        """
        if self.carries and not self.settled:
            self.settle(tensor, variables, {})
        layers = [place(own, dim, len(self.dims)) for dim, own in enumerate(self.dims) if own is not None]
        return Labels(tuple(layers), weight=True, fixed=not isinstance(tensor, nn.Parameter))

    def forget(self) -> None:
        """Be as if it had never entered an operation."""
        self.met = self.settled = False
        self.dims = (None,) * len(self.dims)


def label_leaves(tracer: Tracer, held: Mapping[str, Tensor], target: str | None) -> dict[str, Leaf]:
    """Make every parameter and buffer of a private copy known to the trace that will run it.

    Args:
        tracer: The trace that begins.
        held: The parameters and buffers, by canonical name.
        target: Canonical name of the submodule to which cutting is limited.

    Returns:
        What the trace will learn of each.
    """
    leaves = {name: Leaf(tensor, naming.is_below(name, target)) for name, tensor in held.items()}
    for name, leaf in leaves.items():
        tracer.label(held[name], leaf)
    return leaves
