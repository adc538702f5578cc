"""One run of Knowledge Evolution: what is known of it, how its generations open and close, how it is saved."""

from lightning_ke.run.evolution import EvolutionRun

__all__ = ["EvolutionRun"]
