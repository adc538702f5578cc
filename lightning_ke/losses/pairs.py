"""Batches of pairs: for each example another one of its class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Sampler


class PairBatchSampler(BatchSampler):
    """Batches of `batch_size` examples and behind them as many partners, the n-th of the class of the n-th example.

    Examples come from any sampler; under DDP Lightning puts the rank's own in its place. Partners are drawn from the
    whole set, uniformly within the class and with replacement (an example may be its own partner), by a generator that
    is seeded once an epoch from torch's global one: whoever restores that one continues a run exactly.

    Args:
        sampler: Yields the positions of the examples.
        batch_size: Examples in a batch; with their partners it holds twice as many.
        drop_last: Whether a smaller last batch is left out.
        labels: Class of each position; None reads `labels` or `targets` of the sampler's data set.

    Raises:
        ValueError: If the labels are neither given nor found.

    Source:
        "Regularizing Class-wise Predictions via Self-knowledge Distillation" (CVPR 2020).

    Example:
        >>> from torch.utils.data import SequentialSampler
        >>> labels = [0, 1, 0, 1]
        >>> batch, = PairBatchSampler(SequentialSampler(labels), 4, drop_last=False, labels=labels)
        >>> [labels[position] for position in batch]
        [0, 1, 0, 1, 0, 1, 0, 1]
    """

    def __init__(
        self,
        sampler: Sampler[int] | Iterable[int],
        batch_size: int,
        drop_last: bool = False,
        labels: Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        # Lightning builds a batch sampler anew under DDP, and of one that was made outside of the data module's hooks
        # it knows these three arguments only.
        classes = torch.as_tensor(_labels_of(sampler) if labels is None else labels)
        self._class_of = torch.unique(classes, return_inverse=True)[1]
        order = torch.argsort(self._class_of, stable=True)
        self._members = torch.split(order, torch.bincount(self._class_of).tolist())

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, (), device="cpu").item()))
        for batch in super().__iter__():
            yield batch + [self._partner(position, generator) for position in batch]

    def _partner(self, position: int, generator: torch.Generator) -> int:
        members = self._members[int(self._class_of[position])]
        return int(members[int(torch.randint(len(members), (), generator=generator, device="cpu"))])


def _labels_of(sampler: Any) -> Any:
    """The labels of the data set that a sampler of torch's or Lightning's goes through."""
    dataset = getattr(sampler, "data_source", getattr(sampler, "dataset", None))
    for name in ("labels", "targets"):
        if hasattr(dataset, name):
            return getattr(dataset, name)
    raise ValueError(
        "Expected the sampler's data set to have `labels` or `targets`, but it has neither. Give "
        "`PairBatchSampler(..., labels=...)`; under DDP, give the data set one of the two."
    )
