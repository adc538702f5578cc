"""Resets that need to know nothing but the layer."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from lightning_ke.resets.base import Reset
from lightning_ke.units import StandIn, is_norm, own_reset


class LayerReset(Reset):
    """Draw as the layer itself does when it is built: its own ``reset_parameters``.

    For convolutions and linear layers that is ``kaiming_uniform_(a=sqrt(5))``, as released by the authors. A parameter
    that its module's reset does not fill is kept.

    Source:
        ahmdtaha/knowledge_evolution, which redraws by PyTorch's own layer default.
    """

    name: ClassVar[str] = "layer"
    description: ClassVar[str] = "each module's own reset_parameters (as released)"
    keeps_undrawn: ClassVar[bool] = True

    def draw(self, stand_in: StandIn) -> None:
        """Run the module's own reset on the stand-in.

        Args:
            stand_in: A private copy of one module.

        Raises:
            RuntimeError: If the module's own reset fails.
        """
        reset = own_reset(stand_in.module)
        if reset is None:
            return
        try:
            reset()
        except Exception as error:
            raise RuntimeError(
                f"Expected `{stand_in.name or 'model'}` ({type(stand_in.module).__name__}) to redraw its parameters by "
                f"`reset_parameters()`, but that failed with {type(error).__name__}: {error}. Exclude its parameters "
                "by `exclude`, or give a `Reset` object of your own."
            ) from error


class KaimingNormal(Reset):
    """Draw weights by ``kaiming_normal_(fan_in, relu)``; vectors (biases) become zero.

    The reference's *initial* weights. An embedding's row for padding becomes zero. Norm layers, where they are redrawn
    at all, start over as they were built.
    """

    name: ClassVar[str] = "kaiming_normal"
    description: ClassVar[str] = "normal values for ReLU networks (fan in), biases zero"

    def draw(self, stand_in: StandIn) -> None:
        """Draw one module's values.

        Args:
            stand_in: A private copy of one module.
        """
        if is_norm(stand_in.module):
            LayerReset().draw(stand_in)
            return
        for values in stand_in.parameters.values():
            if values.ndim >= 2:
                nn.init.kaiming_normal_(values, mode="fan_in", nonlinearity="relu")
            else:
                values.zero_()
        blank_padding(stand_in)


class Zero(Reset):
    """Set the reset hypothesis to zero. Norm layers, where they are redrawn at all, start over as they were built."""

    name: ClassVar[str] = "zero"
    description: ClassVar[str] = "zeros"

    def draw(self, stand_in: StandIn) -> None:
        """Fill one module with zeros.

        Args:
            stand_in: A private copy of one module.
        """
        if is_norm(stand_in.module):
            LayerReset().draw(stand_in)
            return
        for values in stand_in.parameters.values():
            values.zero_()


class NoReset(Reset):
    """Redraw nothing: only schedule and optimizer start over. The control for what the redraws themselves bring."""

    name: ClassVar[str] = "none"
    description: ClassVar[str] = "nothing is redrawn; schedule and optimizer start over (the control)"
    redraws: ClassVar[bool] = False

    def draw(self, stand_in: StandIn) -> None:
        """Draw nothing.

        Args:
            stand_in: A private copy of one module.
        """
        return


def blank_padding(stand_in: StandIn) -> None:
    """Set the row of an embedding that stands for padding to zero: no gradient would ever bring it back.

    Args:
        stand_in: A private copy of one module, drawn.
    """
    module = stand_in.module
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
        module.weight[module.padding_idx].zero_()
