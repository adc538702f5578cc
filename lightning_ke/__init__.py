"""Knowledge Evolution (CVPR 2021) for PyTorch Lightning.

A network is trained in generations. A mask splits its weights once into a fit and a reset hypothesis; between two
generations the reset hypothesis is drawn afresh and the training of the whole network goes on. With the "kels" split
the fit hypothesis is a smaller network of its own.

Naming the package loads nothing: each public name is imported when it is first used.

Example:
    The toy network of the article: three input channels, a residual connection, five classes. At a rate of 0.5 the
    first half of the filters is fit, and in each of them the first half of the kernels. What comes in (three channels)
    and what goes out (five classes, with their bias) is kept whole, and the addition keeps both its sides alike.

    >>> import torch
    >>> from torch import nn
    >>> import lightning_ke as ke
    >>> class Toy(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
    ...         self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
    ...         self.fc = nn.Linear(6, 5)
    ...
    ...     def forward(self, x):
    ...         x = self.conv1(x).relu()
    ...         x = x + self.conv2(x).relu()
    ...         return self.fc(x.mean((2, 3)))
    >>> toy, images = Toy(), torch.zeros(1, 3, 8, 8)
    >>> mask = ke.draw_mask(toy, split="kels", rate=0.5, example_input=images)
    >>> print(mask)
    parameter     shape    fit
    conv1.weight  6x3x3x3  50.0 %
    conv1.bias    6        50.0 %
    conv2.weight  6x6x3x3  25.0 %
    conv2.bias    6        50.0 %
    fc.weight     5x6      50.0 %
    fc.bias       5        100.0 %
    total         533      35.3 %

    A redraw changes the rest and nothing else; the fit hypothesis is a network of its own.

    >>> before = toy.conv2.weight.detach().clone()
    >>> report = ke.redraw(toy, mask, generation=2, seed=0)
    >>> bool((toy.conv2.weight == before)[mask["conv2.weight"]].all())
    True
    >>> bool((toy.conv2.weight != before)[~mask["conv2.weight"]].all())
    True
    >>> slim = ke.extract_slim(toy, mask)
    >>> slim.conv2
    Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    >>> print(ke.measure_cost(toy, images), "->", ke.measure_cost(slim, images))
    62.27 k operations, 533 parameters -> 20.77 k operations, 188 parameters
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ke.callback import KnowledgeEvolution, KnowledgeEvolutionCallback
    from lightning_ke.cost import Cost, measure_cost
    from lightning_ke.endings import GenerationEnd, Overfit, Plateau
    from lightning_ke.history import history_frame, plot_history, write_history_csv
    from lightning_ke.masks import Mask, load_mask
    from lightning_ke.phases import Ascent, Dropped, Phase, Rescale, SlimFirst, Slimmable, Sparse
    from lightning_ke.redrawing import redraw
    from lightning_ke.resets import Orthogonal, Reset, ShrinkPerturb, list_resets
    from lightning_ke.schedule import GenerationSchedule
    from lightning_ke.slim import extract_slim, load_slim, save_slim
    from lightning_ke.splits.base import RedrawSet, Split, SplitContext
    from lightning_ke.splits.bottom_up import BottomUp
    from lightning_ke.splits.compose import Compose
    from lightning_ke.splits.dormant import Dormant
    from lightning_ke.splits.draw import draw_mask
    from lightning_ke.splits.fixed import FixedMask
    from lightning_ke.splits.importance import Importance
    from lightning_ke.splits.kels import Kels
    from lightning_ke.splits.layers import Layers
    from lightning_ke.splits.magnitude import Magnitude
    from lightning_ke.splits.overlap import Overlap
    from lightning_ke.splits.registry import list_splits
    from lightning_ke.splits.sensitivity import Fisher, Snip
    from lightning_ke.splits.supermask import find_supermask
    from lightning_ke.splits.wels import RandomEachGeneration, Wels
    from lightning_ke.splits.whole_layers import Everything, LastLayer

__version__ = "0.1.0"

_HOME = {
    "Ascent": "phases",
    "BottomUp": "splits",
    "Compose": "splits",
    "Cost": "cost",
    "Dormant": "splits",
    "Dropped": "phases",
    "Everything": "splits",
    "Fisher": "splits",
    "FixedMask": "splits",
    "GenerationEnd": "endings",
    "GenerationSchedule": "schedule",
    "Importance": "splits",
    "Kels": "splits",
    "KnowledgeEvolution": "callback",
    "KnowledgeEvolutionCallback": "callback",
    "LastLayer": "splits",
    "Layers": "splits",
    "Magnitude": "splits",
    "Mask": "masks",
    "Orthogonal": "resets",
    "Overfit": "endings",
    "Overlap": "splits",
    "Phase": "phases",
    "Plateau": "endings",
    "RandomEachGeneration": "splits",
    "RedrawSet": "splits",
    "Rescale": "phases",
    "Reset": "resets",
    "ShrinkPerturb": "resets",
    "SlimFirst": "phases",
    "Slimmable": "phases",
    "Snip": "splits",
    "Sparse": "phases",
    "Split": "splits",
    "SplitContext": "splits",
    "Wels": "splits",
    "draw_mask": "splits",
    "extract_slim": "slim",
    "find_supermask": "splits",
    "history_frame": "history",
    "list_resets": "resets",
    "list_splits": "splits",
    "load_mask": "masks",
    "load_slim": "slim",
    "measure_cost": "cost",
    "plot_history": "history",
    "redraw": "redrawing",
    "save_slim": "slim",
    "write_history_csv": "history",
}

__all__ = [
    "Ascent",
    "BottomUp",
    "Compose",
    "Cost",
    "Dormant",
    "Dropped",
    "Everything",
    "Fisher",
    "FixedMask",
    "GenerationEnd",
    "GenerationSchedule",
    "Importance",
    "Kels",
    "KnowledgeEvolution",
    "KnowledgeEvolutionCallback",
    "LastLayer",
    "Layers",
    "Magnitude",
    "Mask",
    "Orthogonal",
    "Overfit",
    "Overlap",
    "Phase",
    "Plateau",
    "RandomEachGeneration",
    "RedrawSet",
    "Rescale",
    "Reset",
    "ShrinkPerturb",
    "SlimFirst",
    "Slimmable",
    "Snip",
    "Sparse",
    "Split",
    "SplitContext",
    "Wels",
    "draw_mask",
    "extract_slim",
    "find_supermask",
    "history_frame",
    "list_resets",
    "list_splits",
    "load_mask",
    "load_slim",
    "measure_cost",
    "plot_history",
    "redraw",
    "save_slim",
    "write_history_csv",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
