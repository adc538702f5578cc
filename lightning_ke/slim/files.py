"""Slim networks on disk: their tensors as safetensors, and which channels they are in the file's header.

With the header the dense network's own class is enough to build the slim one again: nothing is traced or run, and
nothing in a file is ever executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.extras import import_extra
from lightning_ke.slim.cut import shrink
from lightning_ke.slim.extract import structure_of
from lightning_ke.slim.header import Header, state_of, tensors_of

if TYPE_CHECKING:
    from lightning_ke.masks import Mask
    from lightning_ke.structure import Structure

_KEY = "lightning_ke"


def save_slim(
    slim: nn.Module,
    path: str | Path,
    mask: Mask,
    part: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a slim network to a safetensors file from which `load_slim` builds it again.

    The tensors in the file are those of the slim network's state_dict, under the same names (a tied tensor once), so
    that any reader of safetensors can use them; the kept channels stand in the header.

    Args:
        slim: What `extract_slim` or `KnowledgeEvolution.slim_network` returned, trained further or not.
        path: The file; one that exists is replaced once the new one is complete.
        mask: The mask that the network was cut by.
        part: Canonical name of the submodule to save, such as the network inside a LightningModule; None for all.
        metadata: Further strings for the header, for example how images are normalised.

    Raises:
        FileNotFoundError: If the file's folder does not exist.
        TypeError: If the metadata are no strings.
        ValueError: If the network was not cut by this mask, if it has no such part, or if the metadata take a name that
            the file needs.
        ModuleNotFoundError: If safetensors is not installed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import lightning_ke as ke
        >>> def build():
        ...     return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> dense = build()
        >>> mask = ke.draw_mask(dense, "kels", rate=0.5, example_input=torch.zeros(1, 3))
        >>> slim = ke.extract_slim(dense, mask)
        >>> with TemporaryDirectory() as folder:
        ...     ke.save_slim(slim, f"{folder}/slim.safetensors", mask)
        ...     again = ke.load_slim(f"{folder}/slim.safetensors", build)
        >>> again[0], torch.equal(again[2].weight, slim[2].weight)
        (Linear(in_features=3, out_features=4, bias=True), True)
    """
    save_file = import_extra("safetensors.torch", "export").save_file
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected `path` to lie in a folder, but there is no {str(path.parent)!r}. Create it.")
    _check_metadata(metadata or {})
    whole, structure = naming.unwrap(slim), structure_of(mask)
    _check_cut(whole, structure, mask)
    saved = _part_of(whole, part)
    header = Header.describe(whole, saved, structure)
    state, _ = state_of(saved)
    # Copies: safetensors refuses tensors that share memory or are not contiguous.
    copies = {n: t.detach().to("cpu").clone(memory_format=torch.contiguous_format) for n, t in state.items()}
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # that of an ordinary new file: nobody else may read what safetensors writes
        save_file(copies, str(unfinished), {"format": "pt", **(metadata or {}), _KEY: header.text()})
        unfinished.chmod(mode)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_slim(path: str | Path, model_factory: Callable[[], nn.Module]) -> nn.Module:
    """Build a slim network from a file that `save_slim` wrote, with nothing but the dense network's class.

    Args:
        path: The file.
        model_factory: Called without arguments, builds the dense network, with any weights; what it builds is cut and
            filled. It may build it on the meta device, which costs no memory.

    Returns:
        The slim network with the saved values and dtypes, in the train or eval mode that `model_factory` left it in, on
        its device (the CPU for one from the meta device).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another kind or of another version, or if `model_factory` builds another
            network.
        TypeError: If `model_factory` is no function, or builds no module.
        ModuleNotFoundError: If safetensors is not installed.

    Example:
        >>> load_slim("slim.safetensors", lambda: nn.Linear(3, 2))
        Traceback (most recent call last):
        ...
        FileNotFoundError: Expected `path` to be a slim network's file, but there is no file 'slim.safetensors'.
    """
    if isinstance(model_factory, nn.Module) or not callable(model_factory):
        raise TypeError(
            "Expected argument `model_factory` to be a function that builds the dense network, but got a "
            f"{type(model_factory).__name__}. Give its class, or for example `lambda: resnet18(num_classes=10)`."
        )
    strings, tensors = _read(Path(path))
    header = Header.parse(strings[_KEY], str(path))
    network = model_factory()
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"Expected `model_factory` to return the dense network, but it returned a {type(network).__name__}."
        )
    inner = naming.unwrap(network)
    header.check_class(inner)
    header.check_names(inner, tensors)
    shrink(inner, header.structure(inner))
    _fill(inner, tensors, header)
    return network


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings that a slim network was saved with.

    Args:
        path: A file that `save_slim` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or of another kind.
    """
    strings, _ = _read(Path(path))
    return {name: value for name, value in strings.items() if name not in ("format", _KEY)}


def _check_metadata(metadata: Mapping[Any, Any]) -> None:
    """Refuse what no header can hold, and names that have a meaning in it."""
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"Expected argument `metadata` to hold strings by name, but got {value!r} for {name!r}. Write "
                f"`json.dumps(...)` or `str(...)` of it."
            )
        if name in ("format", _KEY):
            raise ValueError(
                f"Expected argument `metadata` to have names of its own, but {name!r} is one that the file itself "
                "needs. Choose another one."
            )


def _part_of(network: nn.Module, part: str | None) -> nn.Module:
    modules = dict(naming.named_modules(network))
    if (part or "") not in modules:
        raise ValueError(
            f"Expected argument `part` to name a submodule of the slim network, but there is no {part!r}. "
            f"The nearest names are {naming.nearest_names(part or '', filter(None, modules))}."
        )
    return modules[part or ""]


def _check_cut(network: nn.Module, structure: Structure, mask: Mask) -> None:
    """Refuse a network that was not cut by this mask."""
    other = sorted({name for name, _ in naming.named_parameters(network)} ^ set(mask))
    if other:
        raise ValueError(
            f"Expected `slim` to have the parameters that `mask` was drawn for, but only one of them has `{other[0]}`. "
            "Give the whole network that was cut; `part` says which of its submodules to save."
        )
    for name, tensor in tensors_of(network):
        cut = structure.cuts.get(name)
        if cut is None:
            continue
        shape = tuple(tensor.shape) if tensor.dim() == len(cut.shape) else cut.shape
        kept = tuple(n if at < 0 else len(structure.axes[at].kept) for n, at in zip(shape, cut.axes, strict=True))
        if kept != tuple(tensor.shape):
            raise ValueError(
                f"Expected `slim` to be cut by `mask`, to a `{name}` of shape {kept}, but its shape is "
                f"{tuple(tensor.shape)}. Give what `extract_slim(model, mask)` returned, and the same mask."
            )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """A file's strings and tensors."""
    safetensors = import_extra("safetensors", "export")
    if not path.is_file():
        raise FileNotFoundError(f"Expected `path` to be a slim network's file, but there is no file {str(path)!r}.")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            strings = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"Expected {str(path)!r} to be a complete safetensors file, but it cannot be read ({error}). It is "
            "truncated or of another kind; write it again with `save_slim`."
        ) from error
    if _KEY not in strings:
        raise ValueError(
            f"Expected {str(path)!r} to be written by `save_slim`, but its header names no kept channels. Read plain "
            "weights by `safetensors.torch.load_file`."
        )
    return strings, tensors


def _fill(network: nn.Module, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Put the saved values into a network that has been cut."""
    state, transient = state_of(network)
    replaced: dict[int, Tensor] = {}
    for name, tensor in state.items():
        saved = tensors[name]
        if tensor.shape != saved.shape:
            raise header.other(f"cut, its `{name}` has shape {tuple(tensor.shape)} in place of {tuple(saved.shape)}")
        if not tensor.is_meta:
            tensor.data = saved.to(tensor.device)
        else:
            kind = isinstance(tensor, nn.Parameter)
            replaced[id(tensor)] = nn.Parameter(saved, requires_grad=tensor.requires_grad) if kind else saved
    for name, buffer in transient.items():
        buffer.data = buffer.to(header.dtype(name, buffer.dtype))
    for name, module in naming.named_modules(network):
        for key, held in (*module._parameters.items(), *module._buffers.items(), *vars(module).items()):
            if id(held) in replaced:
                setattr(module, key, replaced[id(held)])
            elif isinstance(held, Tensor) and held.is_meta:
                raise ValueError(
                    f"Expected `model_factory` to fill `{naming.join_name(name, key)}`, which no state_dict holds, but "
                    "it is on the meta device. Build the network on the CPU."
                )
