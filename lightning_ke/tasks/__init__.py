"""LightningModules for the experiments."""

from lightning_ke.tasks.base import Task
from lightning_ke.tasks.classification import Classification
from lightning_ke.tasks.graphs import NodeClassification
from lightning_ke.tasks.metric_learning import MetricLearning
from lightning_ke.tasks.multi_label import MultiLabel
from lightning_ke.tasks.regression import Heading, Regression
from lightning_ke.tasks.text import NextCharacter

__all__ = [
    "Classification",
    "Heading",
    "MetricLearning",
    "MultiLabel",
    "NextCharacter",
    "NodeClassification",
    "Regression",
    "Task",
]
