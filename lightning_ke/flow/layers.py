"""torch's own layers without data: the operator that a layer consists of, called without torch's dispatcher.

Most operations of most networks are convolutions, batch norms and activations of torch's own classes. Their forward
takes three layers of Python and C++ to arrive at one operator with arguments that the module itself holds; on tensors
without data that way is most of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ke.flow.mode import OperationMode, transforming

aten = torch.ops.aten

Forward = Callable[..., Any]

_CONVOLUTIONS = {nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5}
_NORMS = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
#: Activations without arguments, and their operators out of place and in place.
_ACTIVATIONS: dict[type[nn.Module], tuple[torch._ops.OpOverload, torch._ops.OpOverload]] = {
    nn.ReLU: (aten.relu.default, aten.relu_.default),
    nn.SiLU: (aten.silu.default, aten.silu_.default),
    nn.Hardswish: (aten.hardswish.default, aten.hardswish_.default),
    nn.Hardsigmoid: (aten.hardsigmoid.default, aten.hardsigmoid_.default),
}


def shortest_forward(module: nn.Module, mode: OperationMode) -> Forward:
    """A forward of a module that does the same under a mode, by the shortest way.

    Args:
        module: A module of a private copy.
        mode: The mode that is active when the network runs.

    Returns:
        The module's own forward, or for a layer of torch's one that hands its operator to the mode.
    """
    own, kind = module.forward, type(module)
    direct: Callable[[Tensor], Any] | None = None
    if kind in _CONVOLUTIONS:
        direct = _convolution(module, mode)
    elif kind in _NORMS:
        direct = _batch_norm(module, mode)
    elif kind in _ACTIVATIONS:
        direct = _activation(module, mode)
    if direct is None or "forward" in vars(module):
        return own

    def forward(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or type(args[0]) is not Tensor or not args[0].is_meta:
            return own(*args, **kwargs)
        if transforming():  # only `vmap` itself knows which operator on which tensors this is
            return own(*args)
        with torch._C._DisableTorchDispatch():  # as inside of `__torch_dispatch__`
            found = direct(args[0])
        return own(*args) if found is None else found

    return forward


def _convolution(module: Any, mode: OperationMode) -> Callable[[Tensor], Any] | None:
    if module.padding_mode != "zeros" or isinstance(module.padding, str) or not _holds_parameters(module):
        return None
    dims, operator, held = _CONVOLUTIONS[type(module)], aten.convolution.default, module._parameters
    none = [0] * (dims - 2)
    options = (list(module.stride), list(module.padding), list(module.dilation), False, none, module.groups)

    def direct(tensor: Tensor) -> Any:
        if tensor.dim() != dims:
            return None
        return mode.operate(operator, (tensor, held["weight"], held["bias"], *options), {})

    return direct


def _batch_norm(module: Any, mode: OperationMode) -> Callable[[Tensor], Any] | None:
    if not _holds_parameters(module):
        return None
    dims, operator = _NORMS[type(module)], aten.native_batch_norm.default
    held, statistics = module._parameters, module._buffers
    options = (False, module.momentum or 0.0, module.eps)

    def direct(tensor: Tensor) -> Any:
        mean = statistics["running_mean"]
        if module.training or mean is None or tensor.dim() not in dims:
            return None
        arguments = (tensor, held["weight"], held["bias"], mean, statistics["running_var"], *options)
        return mode.operate(operator, arguments, {})[0]

    return direct


def _holds_parameters(module: nn.Module) -> bool:
    """Whether a layer's weight and bias are parameters (or None): pruning puts other tensors in their place."""
    return "weight" in module._parameters and "bias" in module._parameters


def _activation(module: Any, mode: OperationMode) -> Callable[[Tensor], Any]:
    operator = _ACTIVATIONS[type(module)][bool(module.inplace)]

    def direct(tensor: Tensor) -> Any:
        return mode.operate(operator, (tensor,), {})

    return direct
