"""The resets that have a name."""

from __future__ import annotations

from lightning_ke.arguments import check_named
from lightning_ke.naming import did_you_mean
from lightning_ke.resets.base import Reset
from lightning_ke.resets.drawn import KaimingNormal, LayerReset, NoReset, Zero
from lightning_ke.resets.orthogonal import Orthogonal
from lightning_ke.resets.remembered import Initial, Rewind
from lightning_ke.resets.shrink_perturb import ShrinkPerturb

_RESETS: dict[str, type[Reset]] = {
    cls.name: cls for cls in (Initial, KaimingNormal, LayerReset, NoReset, Orthogonal, Rewind, ShrinkPerturb, Zero)
}


def list_resets() -> list[str]:
    """Names of the resets, for the `reset` argument.

    Example:
        >>> list_resets()
        ['initial', 'kaiming_normal', 'layer', 'none', 'orthogonal', 'rewind', 'shrink_perturb', 'zero']
    """
    return sorted(_RESETS)


def get_reset(reset: str | Reset) -> Reset:
    """Build a reset from its name.

    Args:
        reset: One of `list_resets`, or an object, which is returned as it is.

    Raises:
        ValueError: If there is no such reset, or if one of one's own has no name.

    Example:
        >>> get_reset("zero").description
        'zeros'
    """
    if isinstance(reset, Reset):
        check_named("reset", reset, "name")
        return reset
    given: object = reset
    if not isinstance(given, str) or given not in _RESETS:
        raise ValueError(
            f"Expected argument `reset` to be one of {', '.join(map(repr, list_resets()))} or a Reset object, "
            f"but got {reset!r}. {did_you_mean(str(reset), list_resets())}".rstrip()
        )
    return _RESETS[given]()
