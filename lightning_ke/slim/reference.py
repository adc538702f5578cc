"""The fit hypothesis inside the dense network: what the slim network is compared with.

The reset hypothesis of every parameter is zero, and so is what code computes of it alone (a softplus of it); the dense
forward runs as it is, knowing nothing of cuts: a dropped channel meets zero weights wherever it is read. Only where an
operation averages over channels (LayerNorm, GroupNorm, a softmax or mean over channels) or multiplies two activations
does a zero still count; there the slim network defines the fit hypothesis, and the operation is repeated here on the
kept channels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow.dry import tensors
from lightning_ke.flow.kinds import Kind
from lightning_ke.flow.labels import Layer, searched
from lightning_ke.flow.leaves import label_leaves
from lightning_ke.flow.tracer import Tracer
from lightning_ke.flow.variables import Channels, Variables, as_array, as_rows, read, write
from lightning_ke.flow.views import is_view
from lightning_ke.slim.double import run_in_double
from lightning_ke.structure import Structure

aten = torch.ops.aten

#: Operations that average over channels where channels lie along the dimensions they reduce.
_AVERAGES = frozenset(
    {
        aten.native_layer_norm,
        getattr(aten, "_fused_rms_norm", aten.native_layer_norm),  # newer than torch 2.7
        aten.native_group_norm,
        aten.native_batch_norm,
        aten._weight_norm_interface,
        aten.mean,
        aten.sum,
        aten.prod,
        aten.amax,
        aten.amin,
        aten.max,
        aten.min,
        aten.var,
        aten.std,
        aten.var_mean,
        aten.std_mean,
        aten.logsumexp,
        aten.linalg_vector_norm,
        aten.norm,
        aten.aminmax,
        aten.mse_loss,
        aten.smooth_l1_loss,
        aten.huber_loss,
        aten.binary_cross_entropy,
        aten.soft_margin_loss,
        aten._cdist_forward,
        aten._euclidean_dist,
        aten._softmax,
        getattr(aten, "_safe_softmax", aten._softmax),  # torch >= 2.5
        aten._log_softmax,
    }
)

#: Operations that make infinities or undefined numbers of the zeros of a dropped channel.
_UNBOUNDED = frozenset(
    {aten.div, aten.div_, aten.reciprocal, aten.rsqrt, aten.log, aten.log2, aten.log10, aten.pow, aten.logit}
)


class Reference(Tracer):
    """A trace that knows what is kept and lets averages see kept channels only.

    Args:
        dense: A private copy of the dense network that will be run with data.
        structure: What is kept.
    """

    def __init__(self, dense: nn.Module, structure: Structure) -> None:
        super().__init__(Variables())
        held = {**dict(naming.named_parameters(dense)), **dict(naming.named_buffers(dense))}
        leaves = label_leaves(self, held, None)
        for leaf in leaves.values():
            if not leaf.settled:
                leaf.settle()  # each has variables of its own here: what is kept is said of every tensor by itself
        self._kept = np.ones(self.variables.count, dtype=np.bool_)
        for name, leaf in leaves.items():
            cut = structure.cuts.get(name)
            for dim, variables in enumerate(leaf.dims):
                if cut is not None and variables is not None and cut.axes[dim] >= 0:
                    write(self._kept, variables, structure.axes[cut.axes[dim]].member.cpu().numpy())

    def execute(
        self,
        func: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        entering: Sequence[Tensor],
        kind: Kind,
    ) -> Any:
        """Run an operation in double precision.

        Args:
            func: The operator.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            entering: The tensors among its arguments.
            kind: What is known of the operator.
        """
        return run_in_double(func, args, kwargs)

    def finish(
        self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        """Repeat an average on the kept channels alone and let dropped ones contribute nothing.

        Args:
            func: The operator that has run.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            outputs: The tensors it returned; changed in place.
        """
        if func.overloadpacket is aten.bmm:
            self._sum_over_kept(args[0], args[1], outputs[0])
        if func.overloadpacket in _AVERAGES:
            self._average_kept(func, args, kwargs, outputs)
        for output in outputs:
            if output.is_floating_point() and not is_view(func):
                of_parameters = self.labels(output).weight
                if of_parameters or (func.overloadpacket in _UNBOUNDED and not bool(output.isfinite().all())):
                    self._clear_dropped(output)

    def _clear_dropped(self, tensor: Tensor) -> None:
        for dim, kept in enumerate(self._positions(tensor)):
            if kept is not None:
                dropped = torch.ones(tensor.shape[dim], dtype=torch.bool).index_fill(0, kept, False)
                tensor.index_fill_(dim, dropped.nonzero().squeeze(1), 0)

    def _average_kept(
        self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any], outputs: Sequence[Tensor]
    ) -> None:
        """Repeat an average on the kept channels alone and put its result where it belongs."""
        kept = {id(tensor): self._positions(tensor) for tensor in tensors(args)}
        if not any(position is not None for positions in kept.values() for position in positions):
            return
        narrow = [self._narrow(arg, kept[id(arg)]) if isinstance(arg, Tensor) else arg for arg in args]
        if func.overloadpacket in (aten.native_layer_norm, getattr(aten, "_fused_rms_norm", aten.native_layer_norm)):
            narrow[1] = list(narrow[0].shape[narrow[0].dim() - len(args[1]) :])
        elif func.overloadpacket is aten.native_group_norm:
            narrow[4] = narrow[0].shape[1]
            narrow[6] = self._kept_groups(args[0], args[6])
        for output, result in zip(outputs, tensors((func(*narrow, **kwargs),)), strict=True):
            positions = self._positions(output)
            sizes = [size if at is None else len(at) for size, at in zip(output.shape, positions, strict=True)]
            if sizes == list(result.shape):
                index = [
                    torch.arange(size) if at is None else at for size, at in zip(output.shape, positions, strict=True)
                ]
                output.zero_()
                output[torch.meshgrid(*index, indexing="ij") if index else ()] = result

    def _sum_over_kept(self, left: Tensor, right: Tensor, output: Tensor) -> None:
        """Channels that no weight reads (queries and keys of a linear attention) are summed over as an average is."""
        if self.labels(left).weight or self.labels(right).weight:
            return
        one, other = self._positions(left)[2], self._positions(right)[1]
        if one is not None and other is not None and torch.equal(one, other):
            output.copy_(left.index_select(2, one) @ right.index_select(1, other))

    def across_groups(self, entering: Channels, inner: Channels | None, groups: int, width: int) -> Channels:
        """What is kept of each group if that is a share of it, else one entering channel of each group for all of it.

        Args:
            entering: As for `Tracer`.
            inner: As for `Tracer`.
            groups: As for `Tracer`.
            width: As for `Tracer`.
        """
        if inner is not None and not bool(read(self._kept, inner).all()):
            return np.tile(as_array(inner), groups)
        rows = as_rows(entering, groups)
        return np.repeat(rows[np.arange(groups), self._kept[rows].argmax(1)], width)

    def one_of_each_row(self, layer: Layer) -> Layer:
        """What is kept of the channels that are made of rows: of each row one that is kept, if there is any.

        Args:
            layer: As for `Tracer`.
        """
        last, rows = layer.dims[-1], layer.array
        return searched(np.take_along_axis(rows, self._kept_of(layer).argmax(last, keepdims=True), last))

    def kept_part(self, tensor: Tensor) -> Tensor:
        """The kept positions of a tensor of this run.

        Args:
            tensor: A tensor of this run.
        """
        return self._narrow(tensor, self._positions(tensor))

    def _positions(self, tensor: Tensor) -> list[Tensor | None]:
        """The kept positions along each dimension of a tensor, None where all are."""
        positions: list[Tensor | None] = []
        for dim in range(tensor.dim()):
            member = torch.ones(tensor.shape[dim], dtype=torch.bool)
            for layer in self.labels(tensor).layers:
                if layer.shape[dim] > 1:
                    own = torch.from_numpy(self._kept_of(layer))
                    member &= own.movedim(dim, -1).reshape(-1, layer.shape[dim]).any(0)
            positions.append(None if bool(member.all()) else member.nonzero().squeeze(1))
        return positions

    def _kept_of(self, layer: Layer) -> NDArray[np.bool_]:
        """Whether each entry of a layer is kept."""
        if len(self._kept) < self.variables.count:  # channels that no parameter has: those of a first hidden state
            self._kept = np.append(self._kept, np.ones(self.variables.count - len(self._kept), dtype=np.bool_))
        return self._kept[layer.array]

    @staticmethod
    def _narrow(tensor: Tensor, positions: Sequence[Tensor | None]) -> Tensor:
        for dim, kept in enumerate(positions):
            if kept is not None:
                tensor = tensor.index_select(dim, kept)
        return tensor

    def _kept_groups(self, tensor: Tensor, groups: int) -> int:
        kept = self._positions(tensor)[1]
        if kept is None:
            return groups
        members = torch.zeros(tensor.shape[1], dtype=torch.bool).index_fill(0, kept, True).view(groups, -1)
        whole = torch.equal(members.any(1), members.all(1))
        return int(members.any(1).sum()) if whole else groups


def without_reset_hypothesis(dense: nn.Module, structure: Structure) -> None:
    """Set the reset hypothesis of every parameter of a private copy to zero.

    Args:
        dense: A private copy of the dense network.
        structure: What is kept.
    """
    with torch.no_grad():
        for name, parameter in naming.named_parameters(dense):
            if name in structure.cuts:
                parameter.mul_(structure.member(name))
