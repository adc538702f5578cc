"""Cutting a network to its kept channels, and keeping a cut network up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from lightning_ke import naming
from lightning_ke.sharding import gather, own_part
from lightning_ke.structure import Structure


def shrink(network: nn.Module, structure: Structure) -> None:
    """Cut every tensor of a network to its kept channels, in place, and make its attributes tell the truth.

    Args:
        network: A module that is already a private copy: its dense weights are gone afterwards.
        structure: What is kept of each tensor.

    Raises:
        ValueError: If a tensor's shape is not the one that the structure was decided for.

    Example:
        >>> from lightning_ke.flow import decide_structure
        >>> from lightning_ke.splits.base import Call
        >>> network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> shrink(network, decide_structure(network, [Call("", (torch.zeros(1, 3),))], rate=0.5))
        >>> network
        Sequential(
          (0): Linear(in_features=3, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    for name, tensor in _tensors(network):
        if name in structure.cuts or name in structure.scales:
            tensor.data = kept_values(structure, name, tensor)
            tensor.grad = None
    tell_sizes(network, structure)


def narrowing(model: nn.Module, structure: Structure) -> Callable[[Tensor], Tensor]:
    """Return what copies a network's tensors for its slim network: their kept values alone.

    A sharded parameter is gathered while it is copied, and no two of them at a time.

    Args:
        model: The dense network.
        structure: What is kept of each tensor.

    Raises:
        ValueError: If the structure was decided for a network with other tensors.
    """
    names = {id(tensor): name for name, tensor in _tensors(model)}
    if missing := structure.cuts.keys() - set(names.values()):
        raise ValueError(
            f"Expected the mask to be drawn for this network, but it has kept channels of `{min(missing)}`, which "
            f"{type(naming.unwrap(model)).__name__} does not have. Draw it anew by `draw_mask`."
        )

    def convert(tensor: Tensor) -> Tensor:
        name = names.get(id(tensor))
        kept = tensor.detach() if name is None else kept_values(structure, name, tensor)
        if kept.layout is not torch.strided or _shares_memory(kept, own_part(tensor)):
            kept = kept.clone()
        return nn.Parameter(kept, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else kept

    return convert


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def tell_sizes(network: nn.Module, structure: Structure) -> None:
    """Make the attributes of a network whose tensors are cut tell the truth.

    Args:
        network: A network whose tensors hold their kept values alone.
        structure: What is kept of each tensor.
    """
    for name, module in naming.named_modules(network):
        for attribute, value in structure.attributes.get(name, {}).items():
            own = getattr(module, attribute, None)
            setattr(module, attribute, type(own)(value) if isinstance(own, (tuple, list)) else value)
        _tell_the_truth(module)


def refresh(slim: nn.Module, model: nn.Module, structure: Structure) -> None:
    """Copy the dense network's current kept values into an existing slim network, in place.

    Args:
        slim: A network that was cut by `structure`; its tensors keep their storage, device and dtype.
        model: The dense network; it is not changed.
        structure: What is kept of each tensor.
    """
    dense = dict(_tensors(model))
    with torch.no_grad():
        for name, tensor in _tensors(slim):
            tensor.copy_(kept_values(structure, name, dense[name]))


def kept_values(structure: Structure, name: str, tensor: Tensor) -> Tensor:
    """What a slim network holds in place of a dense tensor.

    Args:
        structure: What is kept.
        name: Canonical name of the tensor.
        tensor: The dense tensor; a sharded one is gathered, which all ranks must do together.

    Raises:
        ValueError: If the structure was decided for a tensor of another shape.
    """
    cut = structure.cuts.get(name)
    if cut is not None and tuple(tensor.shape) != cut.shape:
        raise ValueError(
            f"Expected `{name}` to have the shape {cut.shape} for which its kept channels were decided, but got "
            f"{tuple(tensor.shape)}. Use the mask that was drawn for this network."
        )
    return structure.slim_values(name, gather(tensor).detach())


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from naming.named_parameters(network)
    yield from naming.named_buffers(network)


def _weight(module: nn.Module) -> Tensor | None:
    """The tensor that shows a module's sizes."""
    for name in ("weight", "weight_v", "weight_orig"):
        if isinstance(module._parameters.get(name), Tensor):
            return module._parameters[name]
    if nn.utils.parametrize.is_parametrized(module, "weight"):
        # Reading the weight itself would let a spectral norm take a step.
        held = [p for name, p in module.named_parameters() if name.startswith("parametrizations.weight.")]
        return max(held, key=Tensor.numel)
    return module._buffers.get("running_mean")


def _tell_the_truth(module: nn.Module) -> None:
    """Let torch's own layers say the sizes that their tensors have."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            setattr(module, hook.name, hook.compute_weight(module).detach())
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        _tell_recurrent(module)
    elif isinstance(module, nn.MultiheadAttention):
        _tell_attention(module)
    elif isinstance(module, nn.Transformer):
        module.d_model = next(p.shape[-1] for p in module.encoder.parameters() if p.dim() > 1)
    weight = _weight(module)
    if weight is None:
        return
    for kind, tell in _SIZES:
        if isinstance(module, kind):
            tell(module, weight.shape)
            return
    if isinstance(getattr(module, "normalized_shape", None), tuple):
        module.__dict__["normalized_shape"] = tuple(weight.shape)


def _tell_convolution(module: Any, shape: torch.Size) -> None:
    if module.transposed:
        module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
    else:
        module.in_channels, module.out_channels = shape[1] * module.groups, shape[0]


def _tell_linear(module: Any, shape: torch.Size) -> None:
    module.out_features, module.in_features = shape


def _tell_bilinear(module: Any, shape: torch.Size) -> None:
    module.out_features, module.in1_features, module.in2_features = shape


def _teller(attribute: str, dim: int) -> Callable[[Any, torch.Size], None]:
    return lambda module, shape: setattr(module, attribute, shape[dim])


_SIZES: tuple[tuple[type[nn.Module], Callable[[Any, torch.Size], None]], ...] = (
    (nn.Linear, _tell_linear),
    (nn.Bilinear, _tell_bilinear),
    (nn.modules.conv._ConvNd, _tell_convolution),
    (nn.modules.batchnorm._NormBase, _teller("num_features", 0)),
    (nn.GroupNorm, _teller("num_channels", 0)),
    (nn.Embedding, _teller("embedding_dim", 1)),
    (nn.EmbeddingBag, _teller("embedding_dim", 1)),
    (nn.PReLU, _teller("num_parameters", 0)),
)


def _tell_recurrent(module: nn.RNNBase | nn.RNNCellBase) -> None:
    suffix = "_l0" if isinstance(module, nn.RNNBase) else ""
    inputs, states = (module._parameters[f"weight_{side}{suffix}"] for side in ("ih", "hh"))
    assert inputs is not None
    assert states is not None
    gates = 4 if isinstance(module, (nn.LSTM, nn.LSTMCell)) else 3 if isinstance(module, (nn.GRU, nn.GRUCell)) else 1
    module.input_size, module.hidden_size = inputs.shape[1], inputs.shape[0] // gates
    if isinstance(module, nn.RNNBase) and module.proj_size:
        module.proj_size = states.shape[1]


def _tell_attention(module: nn.MultiheadAttention) -> None:
    if module._qkv_same_embed_dim:
        queries = module.in_proj_weight
        module.embed_dim = module.kdim = module.vdim = queries.shape[1]
    else:
        queries = module.q_proj_weight
        module.embed_dim, module.kdim = queries.shape[1], module.k_proj_weight.shape[1]
        module.vdim = module.v_proj_weight.shape[1]
    module.head_dim = module.embed_dim // module.num_heads
