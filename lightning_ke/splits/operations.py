"""A share of the operations in place of a share of the channels: the rate is solved for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from lightning_ke.cost import count_operations
from lightning_ke.flow import decide_structure
from lightning_ke.flow.decide import decide, follow
from lightning_ke.splits.base import SplitContext
from lightning_ke.structure import Structure

_HALVINGS = 24
_LEAST = 1e-9  # a rate that keeps one unit of each layer


def structure_for(
    ops: float, context: SplitContext, *, round_to: int = 1, importance: Mapping[str, Tensor] | None = None
) -> Structure:
    """The largest structure, over all rates, whose slim network needs no more than a share of the operations.

    The share is a step function of the rate that never falls, so halving finds the step. Channels are followed once;
    operations are counted once for each step that is looked at, on slim networks without data.

    Args:
        ops: Share of the dense network's operations, in (0, 1).
        context: The network and how it is run.
        round_to: As for `decide_structure`.
        importance: As for `decide_structure`.

    Returns:
        The structure; its `rate` and `ops` say which rate it is and which share it needs.

    Raises:
        ValueError: If even the smallest slim network needs more, or if its operations cannot be counted.

    Example:
        >>> import torch
        >>> from lightning_ke.splits.base import Call
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 100), torch.nn.ReLU(), torch.nn.Linear(100, 4))
        >>> found = structure_for(0.254, SplitContext(net, (Call(args=(torch.zeros(1, 4),)),), None, seed=0))
        >>> found.rate, found.ops
        (0.25, 0.25)
    """
    model, calls, target = context.model, context.calls, context.target
    traced = follow(model, calls, target)
    mark = traced.variables.mark()
    shares: dict[bytes, float] = {}

    def structure_at(rate: float) -> Structure:
        traced.variables.forget_since(mark)
        return decide_structure(
            model, calls, rate, target=target, round_to=round_to, importance=importance, traced=traced
        )

    def kept_at(rate: float) -> bytes:
        return decide(traced, rate, round_to, importance).tobytes()

    dense = sum(count_operations(model, call) for call in calls)
    smallest = structure_at(_LEAST)

    def share_at(rate: float) -> float:
        kept = kept_at(rate)
        if kept not in shares:
            shares[kept] = _share(structure_at(rate), context, dense)
        return shares[kept]

    least = _share(smallest, context, dense)
    if least >= 1:
        where = f"`target` {target!r}" if target else "the network"
        raise ValueError(
            f"Expected {where} to have channels that a slim network can do without, but all of them must be kept. "
            "Choose another `target`, or a split that chooses weights, such as `wels`."
        )
    if least > ops:
        raise ValueError(
            f"Expected argument `ops` to be a share that a slim network can reach, but got {ops} and the smallest slim "
            f"network needs {least:.4f} of the operations: one channel of each layer, or the fewest that must stay "
            f"together{'' if round_to == 1 else f' or are a multiple of {round_to}'}, beside what is always kept. Give "
            f"`ops` between {least:.4f} and 1."
        )
    low, high = _LEAST, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if share_at(middle) <= ops:
            low = middle
        else:
            high = middle
    # The shortest number that means the same: one that a user would write.
    rounded = (round(low, digits) for digits in range(1, 10))
    rate = next((rate for rate in rounded if 0 < rate < 1 and kept_at(rate) == kept_at(low)), low)
    return replace(structure_at(rate), rate=rate, ops=share_at(rate))


def _share(structure: Structure, context: SplitContext, dense: int) -> float:
    try:
        return sum(count_operations(context.model, call, structure) for call in context.calls) / dense
    except ValueError as error:
        raise ValueError(
            "Expected a slim network that runs, so that its operations can be counted, but the code of this one fixes "
            f"a width ({error}). Give `rate` in place of `ops`, or keep the module out by `target`."
        ) from error
    except ZeroDivisionError as error:
        raise ValueError(
            "Expected a network with convolutions or matrix products, but there is no operation to save. Give `rate` "
            "in place of `ops`."
        ) from error
