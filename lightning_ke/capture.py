"""How a LightningModule runs its network, learnt from the first real batch when no example input was given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_ke.flow.mode import transforming
from lightning_ke.naming import is_below, named_modules, named_parameters
from lightning_ke.splits import Call, as_call

if TYPE_CHECKING:
    from lightning_ke.compatibility import LightningModule


def has_forward(pl_module: LightningModule) -> bool:
    """True if the module defines its own `forward`, so that it can be traced as a whole."""
    # By name: the module may come from either of Lightning's two namespaces.
    inherited = ("LightningModule.forward", "_forward_unimplemented")
    return getattr(type(pl_module).forward, "__qualname__", "") not in inherited


def call_of_example(pl_module: LightningModule, example_input: Any, target: str | None) -> Call:
    """Decide which module an example input is for.

    Args:
        pl_module: The module.
        example_input: The example input, as for `as_call`.
        target: Name of the submodule to be evolved, None for all.

    Raises:
        ValueError: If the module has no `forward` and several parts that the input could be for.
    """
    if has_forward(pl_module):
        return as_call(example_input)
    if target is not None:
        return replace(as_call(example_input), module=target)
    parts = [name for name, child in pl_module.named_children() if any(True for _ in child.parameters())]
    if len(parts) == 1:
        return replace(as_call(example_input), module=parts[0])
    raise ValueError(
        f"Expected {type(pl_module).__name__} to define `forward` so that its network can be traced with the example "
        f"input, but it defines none and has several parts with weights ({', '.join(parts) or 'none'}). "
        "Define `forward`, or name the network by `KnowledgeEvolution(target=...)`."
    )


class CallRecorder:
    """Records the outermost calls of a LightningModule's network until it is closed.

    A module whose `forward` is used is recorded as one call. One that calls its parts from `validation_step` is
    recorded part by part: each part is then a network of its own whose inputs and outputs stay whole. What runs inside
    of `torch.func` (per-sample gradients) is not recorded: its inputs mean nothing outside of it.

    Args:
        pl_module: The module; its forward and its parts are watched by hooks until `close`.
        target: Canonical name of the submodule that has to run, None for any.

    Attributes:
        calls: The calls, the first of each module.
        target_has_run: True once the target, or a part of it, has run.

    Raises:
        ValueError: If there is nothing that could be watched.
    """

    def __init__(self, pl_module: LightningModule, target: str | None = None) -> None:
        self.calls: list[Call] = []
        self.target_has_run = target is None
        self._inside: list[bool] = []  # of each call in progress whether it is one of the network
        watched = list(_callable_parts(pl_module))
        if has_forward(pl_module):
            watched.append(("", pl_module))
        if not watched:
            raise ValueError(
                f"Expected {type(pl_module).__name__} to hold a network, but it has no `forward` and no submodule with "
                "weights. Assign the network in `__init__` or `configure_model`."
            )
        self._handles = []
        for name, module in watched:
            self._handles.append(module.register_forward_pre_hook(self._entering(name), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._left, always_call=True))
        for name, module in named_modules(pl_module) if target is not None else ():
            if is_below(name, target):
                self._handles.append(module.register_forward_pre_hook(self._target_runs))

    def __deepcopy__(self, memo: dict[int, Any]) -> CallRecorder:
        """Stay the same where a watched module is copied: the hooks' handles lead to all that FSDP2 hangs onto it."""
        return self

    def close(self) -> tuple[Call, ...]:
        """Remove every hook and return the calls, the first of each module."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        return tuple(self.calls)

    def _entering(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            of_network = not _is_redirected(module)
            new = not any(self._inside) and all(call.module != name for call in self.calls)
            if of_network and new and not transforming():
                self.calls.append(Call(name, args, kwargs))
            self._inside.append(of_network)

        return hook

    def _target_runs(self, *_: Any) -> None:
        self.target_has_run = True

    def _left(self, *_: Any) -> None:
        self._inside.pop()


def _is_redirected(module: nn.Module) -> bool:
    """True if Lightning has put a step, which takes a batch, in the place of `forward` for DDP to call."""
    return getattr(module.forward, "__qualname__", "").startswith("_ForwardRedirection.")


def _callable_parts(pl_module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The children that hold weights and are called, looking into lists and dicts of modules."""
    parts = []
    for name, child in pl_module.named_children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            parts += _callable_parts(child, f"{prefix}{name}.")
        elif any(True for _ in named_parameters(child)):
            parts.append((f"{prefix}{name}", child))
    return parts
