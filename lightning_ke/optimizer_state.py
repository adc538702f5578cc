"""What an optimizer remembers of weights that were redrawn.

Moments belong to the values that are gone: a redrawn weight that inherits them is pulled away at once. Clearing them
has a catch for the Adam family. Its step count is one number per tensor, so a second moment of zero would be taken for
a tiny gradient (a jump of 3.1 learning rates where 0.31 is usual, on a noisy gradient), and a step count of zero would
let the *fit* entries crawl (0.05 to 0.1 for 50 steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_ke.sharding import gather, own_part, region_of

#: Where a parameter was redrawn: a bool tensor of its shape, or a function that makes it when it is needed.
Redrawn = Tensor | Callable[[], Tensor]

# By the name that torch's optimizers (and those which follow them) give to a state tensor of the parameter's shape.
_SIGNED = frozenset({"momentum_buffer", "exp_avg", "grad_avg", "prev"})
_SCALES = frozenset({"exp_avg_sq", "max_exp_avg_sq", "square_avg", "acc_delta", "exp_inf", "sum"})


def carry_state(
    old: Optimizer, new: Optimizer, redrawn: Mapping[Tensor, Redrawn], mode: Literal["keep", "clear"]
) -> None:
    """Hand the state of one optimizer to a new one for the same parameters.

    Only the state is handed on, never `param_groups`, which hold the old schedule's learning rates. The tensors
    themselves change hands: the old optimizer must not be used any more. Parameters are matched by identity; one that
    only the new optimizer holds starts without state.

    With "clear", redrawn entries forget what belonged to their old values:

    - momenta and averages of gradients (SGD, Adam family, Lion, RMSprop, Rprop) become zero;
    - averages of squared gradients and other scales (Adam family, RMSprop, Adagrad, Adadelta, Adamax) become the mean
      over the tensor's fit entries, and the step count stays: a redrawn entry then starts with small steps and is at
      full speed after some twenty, and fit entries go on as if nothing had happened;
    - step sizes of Rprop start at the learning rate, averaged weights of ASGD at the redrawn value;
    - a tensor that was redrawn as a whole starts without any state, step count included.

    Args:
        old: The optimizer that trained the last generation.
        new: The optimizer for the next one, of the same class.
        redrawn: For each redrawn parameter a bool tensor of its shape, True where it was redrawn, or a function that
            returns it (called for one parameter after the other, so that only one is in memory).
        mode: "keep" hands the state on as it is, "clear" as described.

    Raises:
        ValueError: If the optimizers are of different classes, or if "clear" does not know what a state tensor means.

    Source:
        The rule for the Adam family is this project's; carrying Adam's state over to redrawn weights unchanged is known
        to make them die at once (ports of ReDo, ICML 2023).

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> old, new = (torch.optim.SGD([weight], lr=0.1, momentum=0.9) for _ in range(2))
        >>> weight.grad = torch.ones(2)
        >>> old.step()
        >>> carry_state(old, new, {weight: torch.tensor([True, False])}, mode="clear")
        >>> new.state[weight]["momentum_buffer"]
        tensor([0., 1.])
    """
    if mode not in {"keep", "clear"}:
        raise ValueError(f"Expected argument `mode` to be 'keep' or 'clear', but got {mode!r}.")
    if type(old) is not type(new):
        raise ValueError(
            f"Expected the new optimizer to be a {type(old).__name__} as the old one, but got {type(new).__name__}. "
            "State cannot be carried between classes; let every generation begin with `optimizer='new'`."
        )
    if mode == "clear":
        check_clearable(old)
    for group in new.param_groups:
        for parameter in group["params"]:
            if parameter not in old.state:
                continue
            state = dict(old.state[parameter])
            if mode == "clear" and parameter in redrawn:
                where = redrawn[parameter]
                member = where if isinstance(where, Tensor) else where()
                if bool(member.all()):
                    continue
                _clear(state, parameter, member, float(group["lr"]))
            new.state[parameter] = state


def clear_entries(optimizer: Optimizer, parameter: nn.Parameter, where: Tensor) -> None:
    """Let what an optimizer remembers of some entries of a parameter start over, in place, as ``mode="clear"`` does.

    Args:
        optimizer: An optimizer that holds the parameter.
        parameter: The parameter.
        where: Bool tensor of its shape, True for the entries.

    Raises:
        ValueError: If nobody knows what a state tensor means.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        >>> weight.grad = torch.ones(2)
        >>> optimizer.step()
        >>> clear_entries(optimizer, weight, torch.tensor([True, False]))
        >>> optimizer.state[weight]["momentum_buffer"]
        tensor([0., 1.])
    """
    check_clearable(optimizer)
    if bool(where.all()):
        start_over(optimizer, parameter)
        return
    rate = _group_of(optimizer, parameter)["lr"]
    _clear(optimizer.state[parameter], parameter, where.to(parameter.device), float(rate))


def start_over(optimizer: Optimizer, parameter: Tensor) -> None:
    """Let an optimizer begin anew with a parameter, step count included.

    Args:
        optimizer: An optimizer that holds the parameter.
        parameter: The parameter.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.Adagrad([weight], initial_accumulator_value=0.5)
        >>> weight.grad = torch.ones(2)
        >>> optimizer.step()
        >>> start_over(optimizer, weight)
        >>> optimizer.state[weight]["sum"]
        tensor([0.5000, 0.5000])
    """
    if isinstance(optimizer, torch.optim.Adagrad):  # older versions of torch make its state in the constructor alone
        state = optimizer.state[parameter]
        state["step"].zero_()
        own_part(state["sum"]).fill_(_group_of(optimizer, parameter)["initial_accumulator_value"])
    else:
        optimizer.state.pop(parameter, None)


def _group_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    return next(group for group in optimizer.param_groups if any(held is parameter for held in group["params"]))


def check_clearable(optimizer: Optimizer, phase: str | None = None) -> None:
    """Refuse an optimizer of whose state nobody can say what belongs to a single weight.

    Args:
        optimizer: An optimizer that has taken steps; before, there is no state to look at.
        phase: Name of the phase that clears it; None if `mode="clear"` does.

    Raises:
        ValueError: If it holds a state tensor of unknown meaning, named in the message.
    """
    for state in optimizer.state.values():
        for key, value in state.items():
            known = key in _SIGNED or key in _SCALES or key in {"step_size", "ax"}
            # Single numbers (step counts, products of decay rates) belong to the tensor, not to an entry.
            if not known and _holds_more_than_a_number(value):
                advice = (
                    "Use `optimizer='new'` (as released) or `optimizer='keep'`."
                    if phase is None
                    else f"Use another one, such as SGD or Adam, or leave phase {phase!r} out."
                )
                raise ValueError(
                    f"Expected an optimizer whose state can be cleared for single weights, but {key!r} of "
                    f"{type(optimizer).__name__} is none that is known to be. {advice}"
                )


def _holds_more_than_a_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() > 1
    return isinstance(value, list | tuple | dict) and len(value) > 0


@torch.no_grad()
def _clear(state: dict[str, Any], parameter: Tensor, member: Tensor, lr: float) -> None:
    """Let the redrawn entries (`member`, not all) of one parameter's state start over, in place."""
    fit, region = int((~member).sum()), region_of(parameter)
    member = (member if region is None else member[region]).to(own_part(parameter).device)
    for key, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if key in _SIGNED:
            own_part(value).masked_fill_(member, 0)
        elif key in _SCALES:
            # Summed with the redrawn entries as zeros: an index would copy the fit entries and their positions.
            own_part(value).masked_fill_(member, 0)
            # Not in double precision, which not every device has.
            total = value.sum(dtype=torch.promote_types(value.dtype, torch.float32))
            mean = float(gather(total)) / fit
            own_part(value).masked_fill_(member, mean)
        elif key == "step_size":
            own_part(value).masked_fill_(member, lr)
        elif key == "ax":
            own, held = own_part(value), own_part(parameter)
            own.copy_(torch.where(member, held.to(own.dtype), own))
