"""Peak memory of one action, measured in a new process (Linux).

Usage: python -m benchmarks.speed.memory ACTION NETWORK, with ACTION one of the keys of `ACTIONS`; prints bytes.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torchvision.models import get_model

import lightning_ke as ke
from tests.memory import PeakMemory

# The allocator then gives every freed block back at once, so that resident memory is what is really held.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0"}


def build(name: str) -> nn.Module:
    """A torchvision network with random weights, GoogLeNet without auxiliary heads."""
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network: nn.Module = get_model(name, **options)
    return network


def fill(network: nn.Module) -> None:
    """The plainest redraw: fill every convolution and linear weight anew, fit or not."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5)


def forward(network: nn.Module, x: torch.Tensor) -> None:
    """One forward in eval mode, without gradients."""
    with torch.no_grad():
        network.eval()(x)


def _draw(network: nn.Module) -> Callable[[], object]:
    x = torch.zeros(1, 3, 224, 224)
    return lambda: ke.draw_mask(network, "kels", 0.5, x)


def _redraw(split: str) -> Callable[[nn.Module], Callable[[], object]]:
    def prepare(network: nn.Module) -> Callable[[], object]:
        mask = ke.draw_mask(network, split, 0.5, torch.zeros(1, 3, 224, 224))
        return lambda: ke.redraw(network, mask, generation=2)

    return prepare


#: Each makes ready and returns what is measured.
ACTIONS: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
    "draw": _draw,
    "redraw-kels": _redraw("kels"),
    "redraw-wels": _redraw("wels"),
    "fill": lambda network: lambda: fill(network),
    "forward": lambda network: lambda: forward(network, torch.zeros(1, 3, 224, 224)),
}


def peak_memory(action: str, network: str) -> int:
    """Bytes of resident memory at the highest point of an action above its start.

    Args:
        action: A key of `ACTIONS`.
        network: torchvision's name of the network.
    """
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.memory", action, network]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | _ENVIRONMENT)
    return int(done.stdout.split()[-1])


def peak_of_redraw(split: str, network: str) -> int:
    """The larger of two measures of what a redraw takes: resident memory, and the tensors that are alive at once.

    A kernel that takes pages away meanwhile makes the first too small; the second knows nothing but tensors.

    Args:
        split: Name of the split.
        network: torchvision's name of the network.
    """
    run = ACTIONS[f"redraw-{split}"](build(network))
    with PeakMemory() as counted:
        run()
    return max(counted.peak, peak_memory(f"redraw-{split}", network))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"This kernel's /proc/self/status has no {field}.")


def main(action: str, name: str) -> None:
    """Measure in this process, after the same action on a small network has loaded whatever it loads once."""
    torch.set_num_threads(1)
    ACTIONS[action](build("resnet18"))()
    run = ACTIONS[action](build(name))
    gc.collect()
    start, library = _status("VmRSS"), _status("RssFile")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    run()
    # Pages of torch's and numpy's own code that were read for the first time meanwhile are no memory that it needs.
    print(max(_status("VmHWM") - start - (_status("RssFile") - library), 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
