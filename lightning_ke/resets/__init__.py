"""How the values of the reset hypothesis are drawn, and the ways that have a name."""

from lightning_ke.resets.base import Reset
from lightning_ke.resets.drawn import KaimingNormal, LayerReset, NoReset, Zero
from lightning_ke.resets.orthogonal import Orthogonal
from lightning_ke.resets.registry import get_reset, list_resets
from lightning_ke.resets.remembered import Initial, Rewind
from lightning_ke.resets.shrink_perturb import ShrinkPerturb

__all__ = [
    "Initial",
    "KaimingNormal",
    "LayerReset",
    "NoReset",
    "Orthogonal",
    "Reset",
    "Rewind",
    "ShrinkPerturb",
    "Zero",
    "get_reset",
    "list_resets",
]
