"""Which weights are fit: a compact, named collection of boolean tensors.

A mask is drawn once and kept for the whole training, so it is stored packed (`lightning_ke.packing`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from lightning_ke.packing import Bits, Channels, Entry, Shard, Whole
from lightning_ke.structure import Structure


class Mask(Mapping[str, Tensor]):
    """The binary mask of a split: for every parameter a bool tensor of its shape, True where it is fit.

    Reading ``mask[name]`` unpacks that one tensor; nothing else is kept unpacked.

    Args:
        entries: The packed mask of each parameter, by canonical name.
        structure: What a structured split keeps of each tensor, buffers included; None for an unstructured split.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), the binary mask M of section 3.

    Example:
        >>> mask = Mask.from_tensors({"weight": torch.tensor([[True, False], [False, False]])})
        >>> mask["weight"]
        tensor([[ True, False],
                [False, False]])
        >>> mask.fit_share
        0.25
        >>> print(mask)
        parameter  shape  fit
        weight     2x2    25.0 %
        total      4      25.0 %
    """

    def __init__(self, entries: Mapping[str, Entry], structure: Structure | None = None) -> None:
        self._entries = dict(entries)
        self.structure = structure

    @classmethod
    def from_structure(cls, structure: Structure, shapes: Mapping[str, tuple[int, ...]]) -> Mask:
        """Read the mask of each parameter off the kept channels.

        Args:
            structure: What is kept of each tensor.
            shapes: Shape of every parameter of the network, by canonical name; one that the structure does not list is
                wholly fit.
        """
        entries: dict[str, Entry] = {}
        for name, shape in shapes.items():
            cut = structure.cuts.get(name)
            whole = cut is None or max(cut.axes, default=-1) < 0
            entries[name] = Whole(tuple(shape), True) if whole else Channels(tuple(shape), name, structure)
        return cls(entries, structure)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Mask:
        """Pack plain bool tensors.

        Args:
            tensors: A bool tensor for every parameter, by canonical name.

        Raises:
            TypeError: If one is no tensor, or not boolean.
        """
        entries: dict[str, Entry] = {}
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"Expected the mask of `{name}` to be a bool tensor, but got a {type(tensor).__name__}. Convert "
                    "it, for example by `torch.as_tensor(values) > 0.5`."
                )
            if tensor.dtype is not torch.bool:
                raise TypeError(
                    f"Expected the mask of `{name}` to be a bool tensor, but got {tensor.dtype}. "
                    "Convert it, for example by `tensor > 0.5`."
                )
            fit = bool(tensor.all())
            entries[name] = Whole(tuple(tensor.shape), fit) if fit or not tensor.any() else Bits.pack(tensor)
        return cls(entries)

    def to_tensors(self) -> dict[str, Tensor]:
        """Unpack every parameter's bool tensor, by canonical name."""
        return {name: entry.tensor() for name, entry in self._entries.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name].tensor()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.keys() == other.keys() and all(
            self.entry(name).shape == other.entry(name).shape and torch.equal(self[name], other[name]) for name in self
        )

    def entry(self, name: str) -> Entry:
        """The packed mask of one parameter.

        Args:
            name: Canonical name of the parameter.
        """
        return self._entries[name]

    @property
    def fit_share(self) -> float:
        """Share of all weights that are fit, in [0, 1]."""
        total = sum(math.prod(entry.shape) for entry in self._entries.values())
        return sum(entry.count() for entry in self._entries.values()) / max(total, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the packed mask holds."""
        bits = (entry.bits if isinstance(entry, Shard) else entry for entry in self._entries.values())
        packed = sum(entry.packed.nbytes for entry in bits if isinstance(entry, Bits))
        axes = self.structure.axes if self.structure is not None else ()
        return packed + sum(axis.kept.nbytes for axis in axes)

    def __str__(self) -> str:
        return self.summary(max_rows=60)

    def summary(self, max_rows: int | None = None) -> str:
        """A table of every parameter's shape and fit share, and of the whole network's.

        Args:
            max_rows: Number of parameters to show at most, None for all; of a deeper network the first and the last are
                shown.

        Example:
            >>> mask = Mask.from_tensors({f"{i}.weight": torch.tensor([True, False]) for i in range(100)})
            >>> print(mask.summary(max_rows=3))
            parameter               shape  fit
            0.weight                2      50.0 %
            1.weight                2      50.0 %
            ... 97 parameters more
            99.weight               2      50.0 %
            total                   200    50.0 %
        """
        names = list(self._entries)
        hidden = 0 if max_rows is None else max(len(names) - max_rows, 0)
        head = len(names) if not hidden or max_rows is None else (2 * max_rows + 2) // 3
        rows = [("parameter", "shape", "fit")]
        for name in names[:head] + names[head + hidden :]:
            entry = self._entries[name]
            shape = "x".join(map(str, entry.shape)) or "scalar"
            rows.append((name, shape, _percent(entry.count(), math.prod(entry.shape))))
        if hidden:
            rows.insert(head + 1, (f"... {hidden:,} parameters more", "", ""))
        total = sum(math.prod(entry.shape) for entry in self._entries.values())
        fit = sum(entry.count() for entry in self._entries.values())
        rows.append(("total", f"{total:,}", _percent(fit, total)))
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        lines = [f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {share}".rstrip() for name, shape, share in rows]
        if self.structure is not None and self.structure.ops is not None:
            share, rate = 100 * self.structure.ops, self.structure.rate
            lines.append(f"operations {share:.1f} % of the dense network's, at rate {rate} (solved for)")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Mask({len(self)} parameters, {self.fit_share:.1%} fit, {self.nbytes:,} bytes)"

    def state_dict(self) -> dict[str, Any]:
        """The packed mask in plain, weights-only types (what a checkpoint holds).

        Of a parameter that is spread over ranks only a digest of its bits is written: no rank holds all of them, and
        whoever has the seed draws them again.
        """
        entries: dict[str, Any] = {}
        for name, entry in self._entries.items():
            state: dict[str, Any] = {"shape": list(entry.shape)}
            if isinstance(entry, Whole):
                state["fit"] = entry.fit
            elif isinstance(entry, Bits):
                state["packed"] = entry.packed
            elif isinstance(entry, Shard):
                state["digest"] = entry.digest
            entries[name] = state
        structure = None if self.structure is None else self.structure.state_dict()
        return {"version": 1, "entries": entries, "structure": structure}

    def digests(self) -> dict[str, str]:
        """Names of the bits of every parameter whose entries are chosen one by one: equal masks have equal ones."""
        return {
            name: entry.digest if isinstance(entry, Shard) else entry.digest()
            for name, entry in self._entries.items()
            if isinstance(entry, (Bits, Shard))
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Mask:
        """Rebuild a mask from `state_dict`.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If the state was written by a version of this package that stores masks in another way, or by a
                run with sharded parameters, which leaves no bits.
        """
        if state.get("version") != 1:
            raise ValueError(
                f"Expected a mask of format version 1, but got version {state.get('version')!r}. "
                "Read it with the version of lightning_ke that wrote it."
            )
        structure = None if state["structure"] is None else Structure.from_state_dict(state["structure"])
        if is_digest(state):
            raise ValueError(
                "Expected a mask with its bits, but a run with sharded parameters wrote this one, and such a run keeps "
                "what is needed to draw it again. Draw it by `draw_mask` with the run's split, rate and seed, or "
                "resume the run."
            )
        entries: dict[str, Entry] = {}
        for name, packed in state["entries"].items():
            shape = tuple(packed["shape"])
            if "fit" in packed:
                entries[name] = Whole(shape, bool(packed["fit"]))
            elif "packed" in packed:
                entries[name] = Bits(shape, packed["packed"].cpu())
            else:
                assert structure is not None
                entries[name] = Channels(shape, name, structure)
        return cls(entries, structure)


def check_mask(mask: object) -> None:
    """Refuse what is no mask.

    Args:
        mask: What was given for it.

    Raises:
        TypeError: If it is something else, plain tensors included.

    Example:
        >>> check_mask({"weight": torch.tensor([True])})
        Traceback (most recent call last):
        ...
        TypeError: Expected argument `mask` to be a mask, as `draw_mask` returns it, but got a dict. Plain bool \
tensors by name become one by `Mask.from_tensors`.
    """
    if not isinstance(mask, Mask):
        raise TypeError(
            f"Expected argument `mask` to be a mask, as `draw_mask` returns it, but got a {type(mask).__name__}. Plain "
            "bool tensors by name become one by `Mask.from_tensors`."
        )


def load_mask(path: str | Path) -> Mask:
    """Read the mask out of a checkpoint that a Trainer with the `KnowledgeEvolution` callback wrote.

    Args:
        path: A Lightning checkpoint, or a file that holds `Mask.state_dict()`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read or holds no mask.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> mask = Mask.from_tensors({"weight": torch.tensor([True, False])})
        >>> with TemporaryDirectory() as folder:
        ...     torch.save(mask.state_dict(), f"{folder}/mask.pt")
        ...     load_mask(f"{folder}/mask.pt")["weight"]
        tensor([ True, False])
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected `path` to be a checkpoint, but there is no file {str(path)!r}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Text and images fail with the same error as a class that is not allowed, but name none.
        if isinstance(error, UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", str(error))):
            raise ValueError(
                f"Expected {str(path)!r} to hold plain types only, but it holds {named[1]}, such as an object saved "
                "as a hyperparameter. If you trust it, read it by `torch.load(path, weights_only=False)` and give the "
                "callback's `state['mask']` to `Mask.from_state_dict`."
            ) from error
        why = "it is no file of torch's" if isinstance(error, (UnpicklingError, EOFError)) else error
        raise ValueError(
            f"Expected `path` to be a complete checkpoint, but {str(path)!r} could not be read ({why}). "
            "It may be truncated; use an earlier checkpoint."
        ) from error
    if isinstance(content, dict) and "entries" in content:
        return Mask.from_state_dict(content)
    callbacks = content.get("callbacks", {}) if isinstance(content, dict) else {}
    for key, state in callbacks.items():
        if str(key).startswith("KnowledgeEvolution") and state.get("mask") is not None:
            return Mask.from_state_dict(state["mask"])
    raise ValueError(
        f"Expected {str(path)!r} to hold a mask, but it holds none. "
        "A checkpoint holds one once a Trainer with the KnowledgeEvolution callback has drawn it."
    )


def is_digest(state: Mapping[str, Any]) -> bool:
    """Return whether the state of a mask holds digests in place of bits.

    Args:
        state: What `Mask.state_dict` returned.
    """
    return any("digest" in entry for entry in state["entries"].values())


def saved_digests(state: Mapping[str, Any]) -> dict[str, str]:
    """What `Mask.digests` returned when the state of a mask was written, of which some ranks hold parts only.

    Args:
        state: What `Mask.state_dict` returned.
    """
    found = {}
    for name, entry in state["entries"].items():
        if "digest" in entry:
            found[name] = entry["digest"]
        elif "packed" in entry:  # tensor parallelism spreads some parameters and leaves the others whole
            found[name] = Bits(tuple(entry["shape"]), entry["packed"].cpu()).digest()
    return found


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "empty"
