"""Which module is running: names for error messages, for remembered sizes and for the first difference of a proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from lightning_ke import naming
from lightning_ke.flow.attributes import tells_its_sizes
from lightning_ke.flow.dry import tensors
from lightning_ke.flow.layers import shortest_forward

if TYPE_CHECKING:
    from lightning_ke.flow.tracer import Tracer


def train_whole(network: nn.Module) -> None:
    """Put a private copy into train mode, but for layers that would drop or average: those stay in eval mode.

    Args:
        network: The copy.
    """
    for module in network.modules():
        written_by_hand = not type(module).__module__.startswith("torch.nn") and bool(module._parameters)
        averages = isinstance(module, nn.modules.batchnorm._NormBase)
        module.training = any(True for _ in module.children()) or (written_by_hand and not averages)


@contextmanager
def running_modules(modules: Mapping[str, nn.Module], tracer: Tracer) -> Iterator[None]:
    """Keep the names and inputs of the running modules on a tracer's stack.

    Args:
        modules: All modules of a private copy by canonical name.
        tracer: The trace.
    """
    changed = [module for module in modules.values() if not isinstance(module, torch.jit.ScriptModule)]
    before = [vars(module).get("forward") for module in changed]
    names = {id(module): name for name, module in modules.items()}
    # Told by the forward of each module itself: torch's hooks for all modules cost several times as much.
    for module in changed:
        vars(module)["forward"] = _telling_forward(names[id(module)], module, tracer)
    try:
        yield
    finally:
        for module, forward in zip(changed, before, strict=True):
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward


def _telling_forward(name: str, module: nn.Module, tracer: Tracer) -> Callable[..., Any]:
    """A module's forward that tells a tracer when it begins and ends."""
    stack, forward = tracer.modules, shortest_forward(module, tracer)
    tells = tells_its_sizes(module)

    def telling(*args: Any, **kwargs: Any) -> Any:
        entering = (*args, *kwargs.values())
        stack.append((name, entering))
        try:
            if tells:
                for tensor in tensors(entering):
                    tracer.size(tensor, end="in")
            output = forward(*args, **kwargs)
            if tells:
                for tensor in tensors((output,)):
                    tracer.size(tensor, end="out")
        finally:
            stack.pop()
        if stack and stack[-1][0] in tracer.makers:  # its first hidden states are as wide as its parts' later ones
            for tensor in tensors((output,)):
                tracer.size(tensor, end="part")
        return output

    return telling


@contextmanager
def entering(network: nn.Module, last: list[str]) -> Iterator[None]:
    """Keep the name of the module that was entered, or returned to, last.

    Args:
        network: The network that will run.
        last: Its only entry is that name; it stays as it is when the network fails.
    """
    names = {id(module): name for name, module in naming.named_modules(network)}
    stack: list[str] = []

    def enter(module: nn.Module, args: Any) -> None:
        stack.append(names.get(id(module), last[0]))
        last[0] = stack[-1]

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        stack.pop()
        last[0] = stack[-1] if stack else ""

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watching(network: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Show every module's output tensor while a network runs.

    Args:
        network: The network that will run.
        see: Called with the module's canonical name and the tensor that it returned.
    """
    names = {id(module): name for name, module in naming.named_modules(network)}

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and id(module) in names:
            see(names[id(module)], output)

    handle = register_module_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()
