"""Layer split: late layers are redrawn as a whole, early ones are fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lightning_ke.arguments import check_name
from lightning_ke.masks import Mask
from lightning_ke.naming import is_below, named_modules, nearest_names
from lightning_ke.packing import Entry, Whole
from lightning_ke.splits.base import Split, SplitContext
from lightning_ke.units import Unit, units


@dataclass(frozen=True)
class Layers(Split):
    """Redraw every layer from a named block up, weights and biases; all before it, and every norm, is fit.

    "Up" follows the order in which the network registers its modules. There is no slim network: nothing is cut.

    Args:
        start: Canonical name of the first block that is redrawn, or an end of it that is unique ("layer4" finds
            "model.layer4"). None is the first block of several layers that begins in the second half of the network's
            layers: ``layer4`` in ResNet18, 34, 50 and 101, ``features.denseblock4`` in DenseNet121.

    Raises:
        TypeError: If `start` is no name.

    Source:
        "Fortuitous Forgetting in Connectionist Networks" (ICLR 2022), later-layer forgetting: ``layer4``, or ``layer3``
        and up, in ResNet18. The authors' code leaves every bias as it is; their convolutions have none, so this differs
        for the classifier's bias only.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
        >>> mask = Layers(start="1").draw(SplitContext(net, (), None, seed=0))
        >>> {name: bool(member.all()) for name, member in mask.items()}  # doctest: +NORMALIZE_WHITESPACE
        {'0.weight': True, '0.bias': True, '1.weight': False, '1.bias': False, '2.weight': False, '2.bias': False}
    """

    start: str | None = None

    name: ClassVar[str] = "layers"

    def __post_init__(self) -> None:
        if self.start is not None:
            check_name("start", self.start)

    def draw(self, context: SplitContext) -> Mask:
        """Mark the layers from `start` up.

        Args:
            context: The network.

        Raises:
            ValueError: If no block, or more than one, is called `start`.
        """
        inside = [unit for unit in units(context.model) if unit.weights and is_below(unit.name, context.target)]
        if self.start is None:
            first = _default_first(inside, context.target or "")
        else:
            start = _find_start(self.start, inside, context.model)
            first = next(position for position, unit in enumerate(inside) if is_below(unit.name, start))
        redrawn = {id(unit.module) for unit in inside[first:]}
        entries: dict[str, Entry] = {}
        for unit in units(context.model):
            for local, parameter in unit.parameters.items():
                entries[unit.canonical(local)] = Whole(tuple(parameter.shape), fit=id(unit.module) not in redrawn)
        return Mask(entries)


def outermost_blocks(context: SplitContext) -> list[str]:
    """Canonical names of the network's (or the target's) outermost blocks that hold layers, in their order.

    Args:
        context: The network.

    Example:
        >>> net = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.ReLU(), nn.Linear(4, 2))
        >>> outermost_blocks(SplitContext(net, (), None, seed=0))
        ['0', '2']
    """
    return _outermost([u.name for u in units(context.model) if u.weights and is_below(u.name, context.target)])


def _find_start(start: str, inside: list[Unit], model: nn.Module) -> str:
    blocks = [name for name, module in named_modules(model) if name and any(is_below(u.name, name) for u in inside)]
    matches = [name for name in blocks if name == start] or [name for name in blocks if name.endswith("." + start)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(
            f"Expected `start` of split 'layers' to name one block, but {start!r} fits "
            f"{', '.join(map(repr, matches[:5]))}. Write one of these names in full."
        )
    raise ValueError(
        f"Expected `start` of split 'layers' to name a block with layers, but got {start!r}. The nearest names are "
        f"{nearest_names(start, blocks)}; the outermost blocks are {', '.join(map(repr, _outermost(blocks)))}."
    )


def _outermost(blocks: list[str]) -> list[str]:
    depth = 0
    while True:
        names = list(dict.fromkeys(".".join(name.split(".")[: depth + 1]) for name in blocks))
        if len(names) > 1 or not any(name.count(".") > depth for name in blocks):
            return names
        depth += 1


def _default_first(inside: list[Unit], prefix: str) -> int:
    """Position of the first layer of the first block that begins in the second half of the layers."""
    half = len(inside) / 2
    while True:
        depth = len(prefix.split(".")) if prefix else 0
        # Begin and number of layers of each block one level below the prefix.
        blocks: dict[str, list[int]] = {}
        for position, unit in enumerate(inside):
            if is_below(unit.name, prefix) and unit.name != prefix:
                blocks.setdefault(".".join(unit.name.split(".")[: depth + 1]), []).append(position)
        late = [positions for positions in blocks.values() if positions[0] >= half]
        several = [positions for positions in late if len(positions) > 1]
        if several:
            return several[0][0]
        across = [name for name, p in blocks.items() if len(p) > 1 and p[0] < half <= p[-1] + 1]
        if not across:
            return late[0][0] if late else len(inside) - 1
        prefix = across[0]
