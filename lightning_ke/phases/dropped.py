"""What a generation redraws is absent for a while before it is drawn (RePr)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_ke.masks import Mask
from lightning_ke.naming import named_parameters
from lightning_ke.phases.base import Phase, Scene, zero, zero_gradient


class Dropped(Phase):
    """Hold what the generation redraws at zero, let the rest train alone, and redraw only behind the phase.

    The redraw of a generation is put off until this phase is over; a reset that looks at old values sees those from
    before the phase. The optimizer's state of what was redrawn starts over. The first generation has no redraw and no
    such phase.

    Args:
        end: Where in a generation it ends, as a share of its epochs in (0, 1].
        first_generation: As for every phase; 2 at least.

    Raises:
        ValueError: If an argument is out of range, or (before training) if the split redraws in several ways.

    Source:
        "RePr: Improved Training of Convolutional Filters" (CVPR 2019): 10 of every 30 epochs without the filters.

    Example:
        >>> from torch import tensor
        >>> layer, phase = nn.Linear(2, 1, bias=False), Dropped()
        >>> mask = Mask.from_tensors({"weight": tensor([[True, False]])})
        >>> phase.enter(Scene(layer, (), mask, None, generation=2, redrawable=lambda _: ["weight"]))
        >>> bool(layer.weight[0, 0] != 0), bool(layer.weight[0, 1] == 0)
        (True, True)
    """

    name: ClassVar[str] = "dropped"
    postpones_redraw: ClassVar[bool] = True
    forgets: ClassVar[bool] = True

    def __init__(self, end: float = 1 / 3, first_generation: int = 2) -> None:
        super().__init__(end=end, first_generation=first_generation)
        if first_generation < 2:
            raise ValueError(
                f"Expected argument `first_generation` of phase 'dropped' to be at least 2, but got {first_generation}:"
                " nothing is redrawn in the first one."
            )
        self._kept = Mask({})
        self._old: dict[str, Tensor] = {}

    def enter(self, scene: Scene) -> None:
        """Put the old values aside and set them to zero."""
        assert scene.survivors is not None, "no generation but the first is without survivors"
        self._kept = scene.survivors
        names = set(scene.redrawable(self._kept))
        self._old = {
            name: parameter.detach()[~self._kept[name].to(parameter.device)].cpu()
            for name, parameter in named_parameters(scene.model)
            if name in names
        }
        self.after_step(scene)

    def before_step(self, scene: Scene) -> None:
        """Give what is absent no gradient, so that no momentum gathers."""
        for _, weight, where in self._dropped(scene):
            zero_gradient(weight, where)

    def after_step(self, scene: Scene) -> None:
        """Set what is absent back to zero."""
        for _, weight, where in self._dropped(scene):
            zero(weight, where)

    def leave(self, scene: Scene) -> None:
        """Redraw it, with the old values in sight."""
        for name, weight, where in self._dropped(scene):
            weight.data[where] = self._old[name].to(weight)
        scene.redraw(self._kept)
        for _, weight, where in self._dropped(scene):
            scene.forget(weight, where)
        self._kept, self._old = Mask({}), {}

    def _dropped(self, scene: Scene) -> list[tuple[str, nn.Parameter, Tensor]]:
        """Name, parameter and the entries that are absent."""
        held = ((name, p) for name, p in named_parameters(scene.model) if name in self._old)
        return [(name, p, ~self._kept[name].to(p.device)) for name, p in held]

    def state_dict(self) -> dict[str, Any]:
        """What is absent, and its old values."""
        return {"kept": self._kept.state_dict(), "old": dict(self._old)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what is absent, and its old values."""
        self._kept, self._old = Mask.from_state_dict(state["kept"]), dict(state["old"])
