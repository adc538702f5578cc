"""LightningModules for the experiments."""

from lightning_ke.tasks.base import Task
from lightning_ke.tasks.classification import Classification

__all__ = ["Classification", "Task"]
