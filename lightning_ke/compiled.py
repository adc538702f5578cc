"""Networks that `torch.compile` runs: what it hangs onto a module still runs that very module when it is copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def uncompiled(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Take the compiled calls off a network and its modules, so that a copy runs itself.

    That is what `nn.Module.compile` leaves behind, and Lightning of a LightningModule that is given to `torch.compile`.

    Args:
        modules: All modules of the network; they are compiled as before when the block ends.

    Example:
        >>> import copy, torch
        >>> layer = nn.Linear(2, 2)
        >>> layer.compile()
        >>> with uncompiled(layer.modules()):
        ...     print(layer._compiled_call_impl)
        None
        >>> layer._compiled_call_impl is None
        False
    """
    before = []
    for module in modules:
        held = vars(module)
        changed: dict[str, Any] = {"_compiled_call_impl": None} if held.get("_compiled_call_impl") is not None else {}
        context = held.get("_compiler_ctx")  # Lightning's
        if context is not None:
            originals = {key.removeprefix("original_"): step for key, step in context.items() if "original_" in key}
            changed |= {"_compiler_ctx": None, **originals}
        if changed:
            before.append((module, {name: held[name] for name in changed}))
        for name, value in changed.items():
            if getattr(value, "__self__", None) is module:  # a method, which a copy finds in its class
                del held[name]
            else:
                held[name] = value
    try:
        yield
    finally:
        for module, compiled in before:
            vars(module).update(compiled)
