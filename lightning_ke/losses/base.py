"""What every loss of a task is, and how an ordinary criterion becomes one."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ke.arguments import as_number

#: What a network takes: one tensor, or several.
Inputs = Tensor | Sequence[Tensor]


class Loss(nn.Module, ABC):
    """A loss that runs the network itself, as often and in whatever way it needs.

    Parameters of a loss (the proxies of metric learning, say) are trained with the network's and never redrawn. What it
    must remember beyond them goes into `remembered`, which the tasks keep in their checkpoints.
    """

    #: True if each training batch must hold a second example of the same class for each example (`PairBatchSampler`).
    needs_pairs: ClassVar[bool] = False
    #: Name of the phase that it is made for, without which it would be its criterion alone; empty for none.
    needs_phase: ClassVar[str] = ""
    #: True if it takes outputs for logits of classes of which one is right, whatever its criterion does.
    compares_classes: ClassVar[bool] = False

    @abstractmethod
    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Compute the loss of a batch.

        Args:
            network: From inputs to outputs, such as scores.
            inputs: The batch's input, or several of them.
            targets: The batch's targets.

        Returns:
            A scalar.
        """

    def after_step(self, network: nn.Module) -> None:
        """Look at the network after an optimizer step.

        Args:
            network: The network that is trained.
        """

    def on_generation_end(self, network: nn.Module) -> None:
        """Look at the network that a generation has trained, before a part of it is redrawn.

        Args:
            network: The network that is trained.
        """

    def remembered(self) -> dict[str, Any]:
        """What must survive a resume beyond the loss's own parameters, in plain, weights-only types."""
        return {}

    def recall(self, remembered: dict[str, Any], network: nn.Module) -> None:
        """Take up what `remembered` returned.

        Args:
            remembered: The remembered state.
            network: The network that is trained, for its architecture.
        """


class Criterion(Loss):
    """A loss of outputs and targets, such as all of torch's.

    Args:
        criterion: From outputs and targets to a scalar.

    Example:
        >>> import torch
        >>> loss = Criterion(nn.MSELoss())
        >>> float(loss(nn.Identity(), torch.ones(3), torch.zeros(3)))
        1.0
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def forward(self, network: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Run the network once and compare its outputs with the targets."""
        loss: Tensor = self.criterion(run(network, inputs), targets)
        return loss


def get_loss(loss: nn.Module) -> Loss:
    """Return a loss that runs the network itself.

    Args:
        loss: A `Loss`, which is returned as it is, or a criterion of outputs and targets.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> get_loss(nn.CrossEntropyLoss(label_smoothing=0.1)).criterion.label_smoothing
        0.1
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, nn.Module):
        raise TypeError(
            f"Expected argument `loss` to be a module that compares outputs with targets, but got {loss!r}. Give for "
            "example `torch.nn.CrossEntropyLoss()`."
        )
    return Criterion(loss)


def run(network: Callable[..., Tensor], inputs: Inputs) -> Tensor:
    """Run a network on one input, or on several.

    Args:
        network: The network.
        inputs: A tensor, or several.
    """
    return network(inputs) if isinstance(inputs, Tensor) else network(*inputs)


def softened_divergence(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence from a teacher's softened predictions, times the temperature squared.

    The factor keeps the size of the gradients independent of the temperature.

    Args:
        scores: Logits of shape (N, C, ...).
        teacher: Logits of the same shape; no gradient flows into them.
        temperature: What both are divided by, greater than 0.

    Returns:
        The mean over the batch, and over all places of an example that has several.

    Raises:
        ValueError: If the two have other shapes.

    Source:
        "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.
    """
    if scores.shape != teacher.shape:
        raise ValueError(
            f"Expected the teacher to have the outputs of the network, of shape {tuple(scores.shape)}, but it gives "
            f"{tuple(teacher.shape)}. Give one that was trained on the same classes."
        )
    predicted = F.log_softmax(scores / temperature, dim=1)
    target = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(predicted, target, reduction="none", log_target=True).sum(1).mean() * temperature**2


@torch.no_grad()
def ask(teacher: nn.Module, inputs: Inputs, device: torch.device) -> Tensor:
    """Run a teacher where the batch is, and in its precision.

    A teacher is no part of the module that Lightning moves and converts.

    Args:
        teacher: The teacher; it is moved if need be.
        inputs: The batch's input, or several of them.
        device: Where the batch is.
    """
    given = [inputs] if isinstance(inputs, Tensor) else inputs
    floating = [each.dtype for each in given if each.is_floating_point()]
    return run(teacher.to(device=device, dtype=floating[0] if floating else None), inputs)


def frozen(network: nn.Module) -> nn.Module:
    """A copy of a network that is evaluated and never trained: a teacher.

    Args:
        network: The network.
    """
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    for parameter in twin.parameters():
        parameter.grad = None
    return twin


def check_temperature(temperature: float) -> float:
    """Refuse a temperature that is not greater than 0.

    Args:
        temperature: What logits are divided by.

    Raises:
        ValueError: If it is out of range.
    """
    if not 0 < as_number(temperature) < math.inf:
        raise ValueError(
            f"Expected argument `temperature` to be a number greater than 0, but got {temperature!r}. Give 4, say."
        )
    return temperature


def check_share(name: str, value: float) -> float:
    """Refuse what is no share.

    Args:
        name: Name of the argument.
        value: What was given for it.

    Raises:
        ValueError: If it is not in [0, 1].
    """
    if not 0 <= as_number(value) <= 1:
        raise ValueError(f"Expected argument `{name}` to be in [0, 1], but got {value!r}.")
    return value
