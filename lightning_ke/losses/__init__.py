"""What a training step minimises: any criterion of torch's, and losses that run the network more than once."""

from lightning_ke.losses.base import Criterion, Loss, get_loss
from lightning_ke.losses.born_again import BornAgain
from lightning_ke.losses.class_wise import ClassWiseDistillation
from lightning_ke.losses.distillation import Distillation
from lightning_ke.losses.in_place import InPlaceDistillation
from lightning_ke.losses.pairs import PairBatchSampler

__all__ = [
    "BornAgain",
    "ClassWiseDistillation",
    "Criterion",
    "Distillation",
    "InPlaceDistillation",
    "Loss",
    "PairBatchSampler",
    "get_loss",
]
