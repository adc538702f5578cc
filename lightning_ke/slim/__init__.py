"""The fit hypothesis as a network of its own: the same class tree with smaller tensors, proved to compute the same."""

from __future__ import annotations

from lightning_ke.slim.cut import narrowing, refresh, shrink, tell_sizes
from lightning_ke.slim.extract import extract_slim
from lightning_ke.slim.files import load_slim, save_slim
from lightning_ke.slim.proof import SlimError, proof_fits, verify_slim

__all__ = [
    "SlimError",
    "extract_slim",
    "load_slim",
    "narrowing",
    "proof_fits",
    "refresh",
    "save_slim",
    "shrink",
    "tell_sizes",
    "verify_slim",
]
