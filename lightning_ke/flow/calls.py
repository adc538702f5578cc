"""How a network was run, written down in plain types: a checkpoint can prove a slim network without the user's data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_ke.splits.base import Call


def record_calls(calls: Sequence[Call]) -> tuple[dict[str, Any], ...]:
    """Write calls down in plain, weights-only types; none if one of them holds an object that is not plain.

    Floating-point tensors leave their shape and range only (a forward may take the logarithm of what is positive);
    integer and bool tensors (token ids, edges) and sparse ones keep their values.

    Args:
        calls: How the network is run.
    """
    try:
        return tuple(
            {"module": call.module, "args": _record(tuple(call.args)), "kwargs": _record(dict(call.kwargs))}
            for call in calls
        )
    except TypeError:
        return ()


def replay_calls(records: Sequence[Mapping[str, Any]], generator: torch.Generator) -> list[Call]:
    """Make calls again, with random values in double precision where only a shape and a range were recorded.

    They are normal where the example held one value everywhere or was not finite, else they are spread over its range.

    Args:
        records: What `record_calls` returned.
        generator: Where the random values come from.
    """
    from lightning_ke.splits.base import Call

    return [
        Call(record["module"], _replay(record["args"], generator), _replay(record["kwargs"], generator))
        for record in records
    ]


def _record(value: Any) -> dict[str, Any]:
    if isinstance(value, Tensor):
        keeps = not value.is_floating_point() or value.layout is not torch.strided
        values = value.detach().cpu().clone() if keeps else None
        spread = None if keeps else _range(value)
        return {"kind": "tensor", "shape": list(value.shape), "values": values, "range": spread}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"kind": "plain", "value": value}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"kind": "dict", "items": {key: _record(item) for key, item in value.items()}}
    if type(value) in (list, tuple):
        return {"kind": type(value).__name__, "items": [_record(item) for item in value]}
    raise TypeError(f"{type(value).__name__} is not plain")


def _range(tensor: Tensor) -> list[float] | None:
    """The least and the largest value of a tensor, None if that says nothing."""
    if tensor.is_meta or not tensor.numel():
        return None
    least, largest = (float(end) for end in torch.aminmax(tensor.detach()))
    return [least, largest] if math.isfinite(largest - least) and least < largest else None


def _replay(record: Mapping[str, Any], generator: torch.Generator) -> Any:
    kind = record["kind"]
    if kind == "tensor":
        if record["values"] is not None:
            return record["values"].clone()
        if record.get("range") is not None:  # masks of the first versions have none
            least, largest = record["range"]
            spread = torch.rand(record["shape"], generator=generator, dtype=torch.float64)
            return least + (largest - least) * spread
        return torch.randn(record["shape"], generator=generator, dtype=torch.float64)
    if kind == "plain":
        return record["value"]
    if kind == "dict":
        return {key: _replay(item, generator) for key, item in record["items"].items()}
    items = [_replay(item, generator) for item in record["items"]]
    return tuple(items) if kind == "tuple" else items
