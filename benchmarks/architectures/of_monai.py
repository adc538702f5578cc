"""Networks of MONAI, small enough to be measured on two cores; their times are those of the same small input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: Number of classes.
CLASSES = 10

#: Builds a network with random weights and what it is called with.
Build = Callable[[], tuple[nn.Module, Any]]
#: What the class of a network takes.
Options = tuple[tuple[Any, ...], dict[str, Any]]

_THREE, _SIX = (16, 32, 64), (16, 16, 32, 64, 128, 16)
#: Networks that lay one image on another take two of them.
_PAIRED = ("RegUNet", "GlobalNet", "LocalNet", "VoxelMorphUNet")
#: Sizes of the images where they are others than 64 in two dimensions and 32 in three.
_SIZES = {"VarAutoEncoder": 32, "SwinUNETR 3d": 64}


def networks() -> dict[str, Build]:
    """Networks by name, for images of one channel: of two dimensions unless the name says three."""
    built = {name: _builder(name, 2, options) for name, options in (*_everywhere(2).items(), *_flat().items())}
    built |= {f"{name} 3d": _builder(name, 3, options) for name, options in _everywhere(3).items()}
    return {**built, "MILModel": _of_bags, "DiNTS 3d": _searched}


def _nets() -> Any:
    import monai.networks.nets

    return monai.networks.nets


def _builder(name: str, dims: int, options: Options) -> Build:
    size = _SIZES.get(name if dims == 2 else f"{name} 3d", 64 if dims == 2 else 32)

    def build() -> tuple[nn.Module, Tensor]:
        args, kwargs = options
        return getattr(_nets(), name)(*args, **kwargs), torch.zeros(1, 2 if name in _PAIRED else 1, *[size] * dims)

    return build


def _everywhere(dims: int) -> dict[str, Options]:
    """Networks that are measured in two and in three dimensions."""
    residual = {"filters": (16, 32, 64, 128), "res_block": True, "deep_supervision": True, "deep_supr_num": 2}
    heads = {"hidden_size": 96, "mlp_dim": 192, "num_heads": 6, "spatial_dims": dims}
    return {
        "UNet": ((dims, 1, CLASSES, (16, 32, 64, 128), (2, 2, 2)), {"num_res_units": 2}),
        "BasicUNet": ((dims, 1, CLASSES, _SIX), {}),
        "AttentionUnet": ((dims, 1, CLASSES, _THREE, (2, 2)), {}),
        "DynUNet": ((dims, 1, CLASSES, [3] * 4, [1, 2, 2, 2], [2] * 3), residual),
        "SegResNet": ((dims, 16, 1, CLASSES), {}),
        "VNet": ((dims, 1, CLASSES), {}),
        "UNETR": ((1, CLASSES, (64 if dims == 2 else 32,) * dims), heads),
        "SwinUNETR": ((1, CLASSES), {"feature_size": 24, "spatial_dims": dims}),
        "DenseNet121": ((dims, 1, CLASSES), {}),
        "resnet18": ((), {"spatial_dims": dims, "n_input_channels": 1, "num_classes": CLASSES}),
    }


def _flat() -> dict[str, Options]:
    """Networks that are measured in two dimensions only."""
    heads = {"hidden_size": 96, "mlp_dim": 192, "num_heads": 6, "spatial_dims": 2}
    back = {"decoder_hidden_size": 96, "decoder_mlp_dim": 192, "decoder_num_heads": 6}
    codes = {
        "downsample_parameters": ((2, 4, 1, 1),) * 2,
        "upsample_parameters": ((2, 4, 1, 1, 0),) * 2,
        "num_embeddings": 16,
        "embedding_dim": 8,
    }
    flat = {"spatial_dims": 2, "in_channels": 1}
    latent = {"num_res_blocks": (1, 1), "channels": (32, 64), "attention_levels": (False, True), "norm_num_groups": 16}
    image = (1, 64, 64)
    return {
        "BasicUNetPlusPlus": ((2, 1, CLASSES, _SIX), {}),
        "SegResNetDS": ((2, 16, 1, CLASSES), {}),
        "SegResNetVAE": (((64, 64),), {**flat, "vae_nz": 32, "init_filters": 16}),
        "EfficientNetBN": (("efficientnet-b0", False, True, 2, 1, CLASSES), {}),
        "SEResNet50": ((), {**flat, "num_classes": CLASSES}),
        "ViT": ((1, (64, 64), (8, 8)), {**heads, "num_layers": 3, "classification": True}),
        "ViTAutoEnc": ((1, (64, 64), (16, 16)), {**heads, "num_layers": 3}),
        "MaskedAutoEncoderViT": ((1, (64, 64), (8, 8)), {**heads, **back, "num_layers": 2}),
        "AutoEncoder": ((2, 1, 1, _THREE, (2, 2, 2)), {}),
        "VarAutoEncoder": ((2, (1, 32, 32), 1, 16, _THREE, (1, 2, 2)), {}),
        "HighResNet": ((2, 1, CLASSES), {}),
        "RegUNet": ((2, 2, 16, 3), {"out_channels": 2}),
        "GlobalNet": (([64, 64], 2, 2, 16, 3), {}),
        "LocalNet": ((2, 2, 16, (0, 1, 2)), {}),
        "VoxelMorphUNet": ((2, 2, 3, (16, 32, 32, 32, 32, 32), (16, 16)), {}),
        "FlexibleUNet": ((1, CLASSES, "resnet18"), {"spatial_dims": 2}),
        "MedNeXtS": ((), {**flat, "out_channels": CLASSES}),
        "AutoencoderKL": ((2,), latent),
        "VQVAE": ((2, 1, 1, (32, 64), 1, (32, 32)), codes),
        "Quicknat": ((CLASSES, 1, 16), {}),
        "Regressor": ((image, (3,), _THREE, (2, 2, 2)), {}),
        "Classifier": ((image, CLASSES, _THREE, (2, 2, 2)), {}),
        "Discriminator": ((image, _THREE, (2, 2, 2)), {}),
        "PatchDiscriminator": ((2, 16, 1), {}),
    }


def _of_bags() -> tuple[nn.Module, Tensor]:
    """A network that sees several patches of a slide."""
    network = _nets().MILModel(CLASSES, mil_mode="att_trans", pretrained=False, backbone="resnet18")
    return network, torch.zeros(1, 4, 3, 32, 32)


def _searched() -> tuple[nn.Module, Tensor]:
    """A network of a searched topology."""
    topology = _nets().TopologyInstance(channel_mul=0.5, num_blocks=6, num_depths=3, use_downsample=True)
    return _nets().DiNTS(topology, 1, CLASSES, node_a=None), torch.zeros(1, 1, 32, 32, 32)
