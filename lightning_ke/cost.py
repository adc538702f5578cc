"""What a network costs: operations of one sample, and parameters."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.arguments import check_network
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import copy_inputs, quiet_world, run, tensors, tensors_in, with_data, without_data
from lightning_ke.flow.mode import OperationMode

if TYPE_CHECKING:
    from lightning_ke.splits.base import Call
    from lightning_ke.structure import Structure

aten = torch.ops.aten
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Args:
        ops: Operations of convolutions, matrix products and attention for one sample; a multiplication and an addition
            count as two.
        params: Number of parameters; a tied parameter counts once.

    Example:
        >>> print(Cost(ops=3_628_146_688, params=11_228_838))
        3.628 G operations, 11.23 M parameters
    """

    ops: int
    params: int

    def __str__(self) -> str:
        return f"{_readable(self.ops)} operations, {_readable(self.params)} parameters"


def measure_cost(model: nn.Module, example_input: Any) -> Cost:
    """Count the operations and parameters of a network, without running it on data.

    Args:
        model: The network; it is not changed.
        example_input: A tensor for ``model(x)``, a tuple for ``model(*x)`` or a dict for ``model(**x)``; the first
            dimension of the first tensor is the batch, whose size does not change the result.

    Raises:
        TypeError: If `model` is no network.
        ValueError: If the network does not run on the example input.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), the operations of the slim networks (there counted with
        normalisation and activations, which add up to 1.5 %).

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 10))
        >>> measure_cost(network, torch.zeros(2, 3, 4, 4))
        Cost(ops=9472, params=1514)
    """
    from lightning_ke.splits.base import Call

    check_network(model)
    args, kwargs = as_call(example_input)
    params = sum(parameter.numel() for _, parameter in naming.named_parameters(model))
    return Cost(count_operations(model, Call("", args, kwargs)), params)


def count_operations(model: nn.Module, call: Call, structure: Structure | None = None) -> int:
    """Count the operations of one sample in one call of a network, or of the slim network that a structure describes.

    Args:
        model: The dense network; it is not changed.
        call: How it is run.
        structure: What the slim network keeps, whose operations are counted in place of the dense network's.

    Raises:
        ValueError: If the network does not run in this way.
    """
    try:
        return _count(model, call, structure, without_data)
    except Exception as error:
        logger.info("Counting operations with data, because the network does not run without (%s).", error)
        try:
            return _count(model, call, structure, with_data)
        except Exception as failure:
            raise ValueError(
                f"Expected the network to run on `example_input`, but it failed ({failure}). "
                "Pass a tensor, a tuple of positional or a dict of keyword arguments that its forward accepts."
            ) from failure


def _count(model: nn.Module, call: Call, structure: Structure | None, convert: Callable[[Tensor], Tensor]) -> int:
    network = private_copy(naming.unwrap(model), convert)
    if structure is not None:
        from lightning_ke.slim.cut import shrink

        shrink(network, structure)
    network.eval()

    def run_on(prepared: Callable[[Tensor], Tensor]) -> _Counter:
        args, kwargs = copy_inputs((tuple(call.args), dict(call.kwargs)), prepared)
        counter = _Counter(tensors_in((args, kwargs)))
        with quiet_world(), counter:
            dict(naming.named_modules(network))[call.module](*args, **kwargs)
        return counter

    counter = run_on(convert)
    batch = max(counter.batch, 1)
    if not counter.unfed or batch == 1:
        return sum(counter.unfed) + round(counter.fed / batch)
    longer = list(counter.unfed)
    # What does not run on another batch is taken to compute for each batch once what no input enters.
    with suppress(Exception):
        longer = run_on(lambda tensor: _lengthened(convert(tensor), batch)).unfed
    # A first hidden state and learned queries are there for every sample.
    each = sum(one for one, other in zip(counter.unfed, longer, strict=False) if one != other)
    return sum(counter.unfed) - each + round((counter.fed + each) / batch)


def _lengthened(tensor: Tensor, batch: int) -> Tensor:
    """An input for one sample more, the tensor itself if it holds no samples."""
    return torch.cat([tensor, tensor[-1:]]) if tensor.dim() and len(tensor) == batch else tensor


def _readable(number: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g} {letter}"
    return str(number)


class _Counter(OperationMode):
    """Counts the operations of every convolution and matrix product of a forward.

    Args:
        inputs: The network's inputs.

    Attributes:
        batch: Number of samples, the first dimension of the first input.
        fed: Operations on what was computed from the inputs, of all samples together.
        unfed: Operations of every other convolution and product in turn.
    """

    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()
        self.fed = 0
        self.unfed: list[int] = []
        # The tensors are held, so that no id is used twice while the count lasts.
        self._fed = {id(tensor): tensor for tensor in inputs}
        self.batch = next((tensor.shape[0] for tensor in self._fed.values() if tensor.dim()), 1)

    def operate(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """See `OperationMode`."""
        result = run(func, args, kwargs)
        fed = any(id(tensor) in self._fed for tensor in tensors((*args, *kwargs.values())))
        if fed:
            self._fed.update((id(tensor), tensor) for tensor in tensors((result,)))
        count = _COUNTS.get(func.overloadpacket)
        if count is not None:
            if fed:
                self.fed += 2 * count(args)
            else:
                self.unfed.append(2 * count(args))
        return result


def _convolution(args: Sequence[Any]) -> int:
    tensor, weight, _, stride, padding, dilation, transposed, _, _ = args[:9]
    per_position = math.prod(weight.shape[1:])
    if transposed:
        return int(tensor.numel() * per_position)
    spatial = tensor.dim() - 2
    # One number may stand for all dimensions, as for a padding that was given by its name ("valid").
    stride, padding, dilation = (
        each if len(each) == spatial else each * spatial for each in (stride, padding, dilation)
    )
    positions = (
        (size + 2 * pad - step * (kernel - 1) - 1) // jump + 1
        for size, pad, step, kernel, jump in zip(
            tensor.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    )
    return int(tensor.shape[0] * weight.shape[0] * math.prod(positions) * per_position)


def _product(left: Tensor, right: Tensor) -> int:
    return left.numel() * right.shape[-1]


def _bilinear(args: Sequence[Any]) -> int:
    left, weight, right = args[:3]
    # One input times the weight of every output, and what that leaves times the other input.
    return int(left.shape[0] * (weight.numel() + weight.shape[0] * right.shape[1]))


_COUNTS: Mapping[Any, Callable[[Sequence[Any]], int]] = {
    aten.convolution: _convolution,
    aten._convolution: _convolution,
    aten.mm: lambda args: _product(args[0], args[1]),
    aten.bmm: lambda args: _product(args[0], args[1]),
    aten.addmm: lambda args: _product(args[1], args[2]),
    aten.baddbmm: lambda args: _product(args[1], args[2]),
    aten.mv: lambda args: args[0].numel(),
    aten.addmv: lambda args: args[1].numel(),
    aten.dot: lambda args: args[0].numel(),
    aten._trilinear: _bilinear,
}


def as_call(example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an example input: a tensor for ``model(x)``, a tuple or list, or a dict.

    Args:
        example_input: The example input.
    """
    if isinstance(example_input, dict):
        return (), example_input
    return (tuple(example_input) if isinstance(example_input, (tuple, list)) else (example_input,)), {}
