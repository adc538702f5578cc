"""A vision transformer that is small enough for small images and small sets."""

from __future__ import annotations

from torch import nn

from lightning_ke.extras import import_extra


def small_vit(
    num_classes: int,
    image_size: int,
    in_channels: int = 3,
    patch: int = 8,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    dropout: float = 0.1,
) -> nn.Module:
    """Build a vision transformer of timm's, with random weights and a mean over all patches before the classifier.

    Args:
        num_classes: Number of classes.
        image_size: Side of the images, in pixels.
        in_channels: Channels of the images.
        patch: Side of a patch, in pixels; it divides `image_size`.
        width: Channels; `heads` divides them.
        depth: Number of blocks.
        heads: Attention heads.
        dropout: Share of the blocks' paths that is dropped in training, growing up to this with depth.

    Raises:
        ValueError: If patches or heads do not divide.

    Source:
        "An Image is Worth 16x16 Words" (ICLR 2021).

    Example:
        >>> import torch
        >>> small_vit(num_classes=10, image_size=32, width=32, depth=1)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    for name, value, whole in (("patch", patch, image_size), ("heads", heads, width)):
        if value < 1 or whole % value:
            raise ValueError(f"Expected argument `{name}` to divide {whole}, but got {value}.")
    transformer = import_extra("timm.models.vision_transformer", "timm").VisionTransformer
    network: nn.Module = transformer(
        img_size=image_size,
        patch_size=patch,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=2.0,
        drop_path_rate=dropout,
        global_pool="avg",
        class_token=False,
    )
    return network
