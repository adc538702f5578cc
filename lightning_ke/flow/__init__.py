"""Channel flow: how the kernels of a split are found in any network.

The identity of each channel flows through the network as data: one forward runs without data, and beside every tensor
travel labels that say which channel variable each position belongs to.
"""

from __future__ import annotations

from lightning_ke.flow.decide import decide_structure
from lightning_ke.flow.registry import FlowError, Operation, register_rule

__all__ = ["FlowError", "Operation", "decide_structure", "register_rule"]
