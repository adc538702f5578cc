"""Parts of a generation in which training is different (SEAL, DSD, AC/DC, RePr, slim and dense networks); rescaling."""

from lightning_ke.phases.ascent import Ascent
from lightning_ke.phases.base import Phase, Scene
from lightning_ke.phases.dropped import Dropped
from lightning_ke.phases.rescale import Rescale
from lightning_ke.phases.runner import PhaseRunner
from lightning_ke.phases.slim_first import SlimFirst
from lightning_ke.phases.slimmable import Slimmable
from lightning_ke.phases.sparse import Sparse

__all__ = ["Ascent", "Dropped", "Phase", "PhaseRunner", "Rescale", "Scene", "SlimFirst", "Slimmable", "Sparse"]
