"""Draw the mask of a network: check what is given, then let the split decide."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from lightning_ke.arguments import check_network, whole
from lightning_ke.masks import Mask
from lightning_ke.naming import (
    is_below,
    join_name,
    named_modules,
    named_parameters,
    nearest_names,
    own_parameters,
    unwrap,
)
from lightning_ke.splits.base import Call, Split, SplitContext
from lightning_ke.splits.registry import get_split


def draw_mask(
    model: nn.Module,
    split: str | Split = "kels",
    rate: float | None = None,
    example_input: Any = None,
    seed: int = 0,
    target: str | None = None,
    ops: float | None = None,
) -> Mask:
    """Decide which weights of a network are fit.

    The network is left as it is, and so is every global random stream.

    Args:
        model: The network, wrapped or not.
        split: One of `list_splits`, or a split object.
        rate: Share of what is fit, in (0, 1): of the channels for "kels" (about ``rate ** 2`` of the weights), of the
            weights for "wels". None is the default of a split that takes a rate.
        example_input: What the network is called with, batch dimension first: a tensor, a tuple or list of positional
            or a dict of keyword arguments; by default the `example_input_array` of a LightningModule. Only splits that
            follow channels ("kels") need it.
        seed: Seed of splits that draw at random.
        target: Canonical name of the submodule to which cutting and redrawing is limited, None for the whole network.
        ops: In place of `rate`, for "kels" and "importance": the share of the network's operations that the slim
            network may need, in (0, 1). The largest rate whose slim network needs no more is solved for; the mask's
            summary says which.

    Returns:
        A bool tensor for every parameter, True where it is fit, by canonical name (packed, see `Mask`).

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument is wrong, or if the network has parameters that cannot be split or none that can.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), section 3.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> mask = draw_mask(net, split="wels", rate=0.25)
        >>> mask["0.weight"].sum()
        tensor(32)
    """
    check_network(model)
    seed = whole("seed", seed, least=0)
    chosen = get_split(split, rate, ops)
    if example_input is None and chosen.needs_calls:
        example_input = getattr(unwrap(model), "example_input_array", None)
    calls = () if example_input is None else (as_call(example_input),)
    if chosen.needs_calls and not calls:
        raise ValueError(
            f"Expected argument `example_input` to be given for split {chosen.name!r}, which follows the channels "
            "through a forward, but got None. Give one batch, for example `example_input=torch.zeros(1, 3, 224, 224)`."
        )
    context = SplitContext(unwrap(model), calls, target or None, seed)
    check_splittable(context)
    return draw_checked(chosen, context)


def draw_checked(split: Split, context: SplitContext) -> Mask:
    """Let a split draw, and refuse a mask that leaves nothing to redraw, or that is none of this network.

    Args:
        split: The split.
        context: The network and how it is run.

    Raises:
        TypeError: If it draws something else.
        ValueError: If the whole network would be fit, or if the mask leaves parameters out.
    """
    mask = split.draw(context)
    if not isinstance(mask, Mask):
        raise TypeError(
            f"Expected split {split.name!r} to draw a mask, but its `draw` returned a {type(mask).__name__}. Bool "
            "tensors by name become a mask by `Mask.from_tensors`."
        )
    for name, parameter in named_parameters(context.model):
        if name not in mask or mask.entry(name).shape != parameter.shape:
            drawn = f"has the shape {tuple(mask.entry(name).shape)}" if name in mask else "leaves it out"
            raise ValueError(
                f"Expected split {split.name!r} to draw a mask for every parameter, but for `{name}` of shape "
                f"{tuple(parameter.shape)} it {drawn}. What is to stay as it is gets `torch.ones_like(parameter, "
                "dtype=torch.bool)`."
            )
    if not split.may_keep_all and all(mask.entry(name).count() == math.prod(mask.entry(name).shape) for name in mask):
        where = f"`target` {context.target!r}" if context.target else "the network"
        raise ValueError(
            f"Expected {where} to have weights that split {split.name!r} can redraw, but all of it would be fit. "
            "It needs convolution, linear or similar layers with more than one free channel (what the forward takes, "
            "returns or picks by number is kept whole); a smaller `rate` or another `target` may help. What `forward` "
            "does not run on the example input stays fit, too: a training without one (nor `example_input_array`) is "
            "shown by its first batch how each part is run."
        )
    return mask


def as_call(example_input: Any) -> Call:
    """Read an example input as Lightning reads `example_input_array`.

    Args:
        example_input: A tensor is the only argument, a tuple or list holds positional, a dict keyword arguments.

    Example:
        >>> as_call({"x": 1}).kwargs
        {'x': 1}
    """
    if isinstance(example_input, dict):
        return Call(kwargs=example_input)
    if isinstance(example_input, tuple | list):
        return Call(args=tuple(example_input))
    return Call(args=(example_input,))


def check_splittable(context: SplitContext) -> None:
    """Refuse a network whose parameters cannot be split, and a target that does not exist.

    Args:
        context: The network and the target.

    Raises:
        TypeError: If the target is no name.
        ValueError: If the target names no module, or if a parameter is uninitialised, parametrised, complex or integer.
    """
    if not isinstance(context.target, str | None):
        raise TypeError(f"Expected argument `target` to be the name of a submodule, but got {context.target!r}.")
    modules = dict(named_modules(context.model))
    if context.target and context.target not in modules:
        raise ValueError(
            f"Expected argument `target` to name a submodule, but there is no {context.target!r}. "
            f"The nearest names are {nearest_names(context.target, filter(None, modules))}."
        )
    for name, parameter in own_parameters(modules.items()):
        if is_lazy(parameter):
            raise ValueError(
                f"Expected every parameter to be initialised, but `{name}` belongs to a lazy module that has not run. "
                "Pass one batch through the network first."
            )
        if is_below(name, context.target) and not parameter.is_floating_point():
            raise ValueError(
                f"Expected every parameter to be a real floating-point tensor, but `{name}` is {parameter.dtype}. "
                "Choose a `target` without it, or register it as a buffer if it is not trained."
            )
    for name, module in modules.items():
        if is_below(name, context.target):
            _refuse_parametrised(name, module)


def _refuse_parametrised(name: str, module: nn.Module) -> None:
    """Refuse a weight that is computed anew in each forward, out of parameters which no reset of a layer fills."""
    found = None
    if "parametrizations" in module._modules and is_parametrized(module):
        local = str(next(iter(module.get_submodule("parametrizations")._modules)))
        found = local, f"torch.nn.utils.parametrize.remove_parametrizations(module, {local!r})"
    for hook in module._forward_pre_hooks.values():
        # The hook objects of torch.nn.utils' older functions know the name of the tensor that they compute.
        kind, local = type(hook).__name__, getattr(hook, "name", None) or getattr(hook, "_tensor_name", None) or ""
        if kind in {"WeightNorm", "SpectralNorm"}:
            remove = "remove_weight_norm" if kind == "WeightNorm" else "remove_spectral_norm"
            found = local, f"torch.nn.utils.{remove}(module, {local!r})"
        elif f"{local}_orig" in module._parameters:
            found = local, f"torch.nn.utils.prune.remove(module, {local!r})"
    if found is not None:
        raise ValueError(
            f"Expected weights that are plain parameters, but `{join_name(name, found[0])}` is parametrised (such as "
            f"by weight_norm or pruning). Make it plain with `{found[1]}`, or choose a `target` without it."
        )
