"""Which images of a set are used, and with which labels: held-out shares, few of each class, wrong labels.

Each choice is drawn on a generator of its own, so that neither the number of workers nor anything else that is random
in a run changes it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def hold_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Hold out the same share of every class.

    Args:
        labels: int64 tensor of shape (N,).
        share: Share that is held out, in (0, 1); of every class at least one image, and never all of them.
        seed: Seed of the choice.

    Returns:
        Positions of those that stay and of those that are held out, each ascending.

    Raises:
        ValueError: If `share` is out of range, or a class has a single image.

    Example:
        >>> stay, out = hold_out(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), share=0.25, seed=0)
        >>> len(stay), len(out)
        (6, 2)
    """
    if not 0 < share < 1:
        raise ValueError(f"Expected the share that is held out to be in (0, 1), but got {share}. Give for example 0.1.")
    out = []
    for label, members in _shuffled_classes(labels, seed):
        if len(members) < 2:
            raise ValueError(
                f"Expected at least 2 images of each class to hold one out, but class {label} has {len(members)}. Add "
                "images, or give a validation split of your own."
            )
        out.append(members[: min(len(members) - 1, max(1, round(share * len(members))))])
    held = torch.cat(out).sort().values
    stays = torch.ones(len(labels), dtype=torch.bool)
    stays[held] = False
    return stays.nonzero().flatten(), held


def few_of_each(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose a number of images of every class.

    Args:
        labels: int64 tensor of shape (N,).
        count: How many of each class, at least 1.
        seed: Seed of the choice; of two counts the larger one holds the images of the smaller one.

    Returns:
        Their positions, ascending.

    Raises:
        ValueError: If a class has fewer images.

    Example:
        >>> few_of_each(torch.tensor([0, 0, 0, 1, 1]), count=2, seed=0).shape
        torch.Size([4])
    """
    chosen = []
    for label, members in _shuffled_classes(labels, seed):
        if len(members) < count:
            raise ValueError(
                f"Expected argument `per_class` to be at most the images of the smallest class, {len(members)} of "
                f"class {label}, but got {count}."
            )
        chosen.append(members[:count])
    return torch.cat(chosen).sort().values


def wrong_labels(labels: Tensor, share: float, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Give a share of the labels another class, drawn uniformly from all others (symmetric label noise).

    Args:
        labels: int64 tensor of shape (N,).
        share: Share of the labels that become wrong, in [0, 1).
        num_classes: Number of classes, at least 2.
        seed: Seed of the choice.

    Returns:
        The new labels, and the positions of the wrong ones, ascending.

    Raises:
        ValueError: If there is no other class.

    Example:
        >>> new, wrong = wrong_labels(torch.zeros(10, dtype=torch.int64), share=0.2, num_classes=3, seed=0)
        >>> len(wrong), (new != 0).nonzero().flatten().equal(wrong)
        (2, True)
    """
    if num_classes < 2:
        raise ValueError(f"Expected at least 2 classes to give labels another one, but there are {num_classes}.")
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))].sort().values
    steps = torch.randint(1, num_classes, (len(wrong),), generator=generator)
    new = labels.clone()
    new[wrong] = (labels[wrong] + steps) % num_classes
    return new, wrong


def _shuffled_classes(labels: Tensor, seed: int) -> list[tuple[int, Tensor]]:
    """The positions of each class, each in a random order of its own."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    return [(label, order[labels[order] == label]) for label in sorted(set(labels.tolist()))]
