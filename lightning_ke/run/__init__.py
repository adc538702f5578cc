"""One run of Knowledge Evolution: what is known of it, how its generations open and close, how it is saved."""

from lightning_ke.run.drawing import NOT_DRAWN
from lightning_ke.run.evolution import EvolutionRun
from lightning_ke.run.first_draw import FirstDraw
from lightning_ke.run.state import check_horizon, state_of, take_up

__all__ = ["NOT_DRAWN", "EvolutionRun", "FirstDraw", "check_horizon", "state_of", "take_up"]
