"""Parts of a generation in which training is different, and what changes survivors: SEAL, DSD, AC/DC, LW."""

from lightning_ke.phases.ascent import Ascent
from lightning_ke.phases.base import Phase, Scene
from lightning_ke.phases.rescale import Rescale
from lightning_ke.phases.runner import PhaseRunner
from lightning_ke.phases.sparse import Sparse

__all__ = ["Ascent", "Phase", "PhaseRunner", "Rescale", "Scene", "Sparse"]
