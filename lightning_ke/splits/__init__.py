"""How a mask is drawn and what each generation redraws, and the splits that have a name."""

from lightning_ke.splits.base import Call, RedrawSet, Split, SplitContext
from lightning_ke.splits.bottom_up import BottomUp
from lightning_ke.splits.compose import Compose
from lightning_ke.splits.dormant import Dormant
from lightning_ke.splits.draw import as_call, check_splittable, draw_checked, draw_mask
from lightning_ke.splits.fixed import FixedMask
from lightning_ke.splits.importance import Importance
from lightning_ke.splits.kels import Kels
from lightning_ke.splits.layers import Layers
from lightning_ke.splits.magnitude import Magnitude
from lightning_ke.splits.overlap import Overlap
from lightning_ke.splits.registry import SplitInfo, get_split, list_splits, split_info
from lightning_ke.splits.sensitivity import Fisher, Snip
from lightning_ke.splits.supermask import find_supermask
from lightning_ke.splits.wels import RandomEachGeneration, Wels
from lightning_ke.splits.whole_layers import Everything, LastLayer

__all__ = [
    "BottomUp",
    "Call",
    "Compose",
    "Dormant",
    "Everything",
    "Fisher",
    "FixedMask",
    "Importance",
    "Kels",
    "LastLayer",
    "Layers",
    "Magnitude",
    "Overlap",
    "RandomEachGeneration",
    "RedrawSet",
    "Snip",
    "Split",
    "SplitContext",
    "SplitInfo",
    "Wels",
    "as_call",
    "check_splittable",
    "draw_checked",
    "draw_mask",
    "find_supermask",
    "get_split",
    "list_splits",
    "split_info",
]
