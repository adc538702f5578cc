"""The splits that have a name."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_ke.arguments import check_named
from lightning_ke.naming import did_you_mean
from lightning_ke.splits.base import Split, check_rate
from lightning_ke.splits.bottom_up import BottomUp
from lightning_ke.splits.channels import ChannelSplit
from lightning_ke.splits.dormant import Dormant
from lightning_ke.splits.importance import Importance
from lightning_ke.splits.kels import Kels
from lightning_ke.splits.layers import Layers
from lightning_ke.splits.magnitude import Magnitude
from lightning_ke.splits.overlap import Overlap
from lightning_ke.splits.sensitivity import Fisher, Snip
from lightning_ke.splits.wels import RandomEachGeneration, Wels
from lightning_ke.splits.whole_layers import Everything, LastLayer


@dataclass(frozen=True)
class SplitInfo:
    """What is known of a split before it is built.

    Args:
        cls: The class; one that takes a rate is built as ``cls(rate)``, another as ``cls()``. Its default rate is
            that of the class.
        description: One line on what is fit and what is redrawn.
        takes_rate: True if a split rate means something for it.
    """

    cls: type[Split]
    description: str
    takes_rate: bool = True

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self.cls.name

    @property
    def structured(self) -> bool:
        """True if the fit hypothesis is a smaller network of its own."""
        return self.cls.structured


_SPLITS = {
    info.name: info
    for info in (
        SplitInfo(BottomUp, "late blocks are redrawn, one block fewer in each generation (LW)", takes_rate=False),
        SplitInfo(Dormant, "channels that hardly say anything are redrawn (ReDo)", takes_rate=False),
        SplitInfo(Everything, "every layer is redrawn (warm starts, the control)", takes_rate=False),
        SplitInfo(Fisher, "the weights with the largest squared gradients are fit, others in each generation (DNR)"),
        SplitInfo(Importance, "the strongest share of each layer's kernels is fit, and is a slim network"),
        SplitInfo(Kels, "the first share of each layer's kernels is fit, and is a slim network (KE)"),
        SplitInfo(LastLayer, "the last layer is redrawn (RIFLE)", takes_rate=False),
        SplitInfo(Layers, "late layers are redrawn, early ones are fit (LLF)", takes_rate=False),
        SplitInfo(Magnitude, "the largest share of each tensor's weights is fit, others in each generation"),
        SplitInfo(Overlap, "filters that overlap least with others are fit, others in each generation (RePr)"),
        SplitInfo(RandomEachGeneration, "a random share of the weights is fit, another one in each generation"),
        SplitInfo(Snip, "the weights with the largest abs(gradient * weight) are fit, others in each generation (DNR)"),
        SplitInfo(Wels, "a random share of the weights is fit, the same in all generations (KE)"),
    )
}


def list_splits() -> list[str]:
    """Names of the splits, for the `split` argument.

    Example:
        >>> list_splits()
        ['bottom-up', 'dormant', 'everything', 'fisher', 'importance', 'kels', 'last-layer', 'layers', 'magnitude',
         'overlap', 'random-each-generation', 'snip', 'wels']
    """
    return sorted(_SPLITS)


def split_info(name: str) -> SplitInfo:
    """What is known of a split.

    Args:
        name: One of `list_splits`.

    Raises:
        ValueError: If there is no such split.

    Example:
        >>> split_info("layers").takes_rate
        False
    """
    if name not in _SPLITS:
        raise ValueError(
            f"Expected argument `split` to be one of {', '.join(map(repr, list_splits()))} or a split object, "
            f"but got {name!r}. {did_you_mean(str(name), _SPLITS)}".rstrip()
        )
    return _SPLITS[name]


def get_split(split: str | Split, rate: float | None = None, ops: float | None = None) -> Split:
    """Build a split from its name.

    Args:
        split: One of `list_splits`, or a split object, which is returned as it is.
        rate: Share of what is fit, in (0, 1); None is the split's own default where it takes a rate (0.5; 0.8 for
            "snip" and "fisher", 0.7 for "overlap").
        ops: In place of `rate` the share of the operations that the slim network may need, for a split that has one.

    Raises:
        ValueError: If there is no such split, if a share lies outside (0, 1), if one is given where it means nothing,
            or if a split of one's own has no name.

    Example:
        >>> get_split("wels", 0.3)
        Wels(rate=0.3)
        >>> get_split("kels")
        Kels(rate=0.5)
    """
    if isinstance(split, Split):
        check_named("split", split, "name")
        for name, share in (("rate", rate), ("ops", ops)):
            if share is not None:
                raise ValueError(
                    f"Expected argument `{name}` to be None next to the split object {split!r}, but got {share!r}. "
                    f"Give the {name} to the split object itself."
                )
        return split
    if not isinstance(split, str):
        raise ValueError(
            f"Expected argument `split` to be one of {', '.join(map(repr, list_splits()))} or a split object, "
            f"but got {split!r}."
        )
    info = split_info(split)
    if not info.takes_rate and rate is not None:
        raise ValueError(
            f"Expected argument `rate` to be None for split {split!r}, which takes none, but got {rate!r}. "
            "Leave `rate` out."
        )
    if ops is not None:
        if not issubclass(info.cls, ChannelSplit):
            raise ValueError(
                f"Expected argument `ops` to be None for split {split!r}, which has no slim network, but got {ops!r}. "
                "Leave `ops` out, or take split 'kels'."
            )
        return info.cls(rate, ops)
    if rate is None:
        return info.cls()
    return info.cls(check_rate(rate))  # type: ignore[call-arg]  # those that come here take a rate, which `Split` does not say
