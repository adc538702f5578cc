"""Draw the reset hypothesis afresh, in place; not a bit of the fit hypothesis changes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_ke.arguments import check_network, check_patterns, whole
from lightning_ke.keyed_rng import forked_rng
from lightning_ke.masks import Mask, check_mask
from lightning_ke.naming import did_you_mean, join_name, named_parameters
from lightning_ke.packing import Channels, Entry
from lightning_ke.pieces import UniformFill, in_pieces, rows_at_once, uniform_fills, write
from lightning_ke.resets import LayerReset, Reset, get_reset
from lightning_ke.splits.base import RedrawSet
from lightning_ke.units import StandIn, Unit, own_reset, units


@dataclass(frozen=True)
class RedrawReport:
    """What a redraw did, by canonical name.

    Args:
        generation: Number of the generation that it opens.
        redrawn: How many entries of each parameter were redrawn; parameters without any are not listed.
        restarted_buffers: Running statistics that started over (``norm="reset"``), wholly or in part.
        kept_bare: Parameters that are never redrawn because nothing says how they were first drawn (class token, layer
            scale, modules without `reset_parameters`).
        kept_frozen: Parameters of the reset hypothesis kept because they need no gradient.
        kept_excluded: Parameters of the reset hypothesis kept because an `exclude` pattern matches them.
        kept_unoptimized: Parameters of the reset hypothesis kept because no optimizer holds them.
    """

    generation: int
    redrawn: dict[str, int] = field(default_factory=dict)
    restarted_buffers: tuple[str, ...] = ()
    kept_bare: tuple[str, ...] = ()
    kept_frozen: tuple[str, ...] = ()
    kept_excluded: tuple[str, ...] = ()
    kept_unoptimized: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Number of redrawn entries; 0 if nothing was redrawn at all."""
        return sum(self.redrawn.values())


def redraw(
    model: nn.Module,
    mask: Mask,
    generation: int,
    *,
    seed: int = 0,
    reset: str | Reset = "layer",
    norm: Literal["keep", "reset"] = "keep",
    exclude: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> RedrawReport:
    """Draw what the mask does not keep afresh: ``W <- M * W + (1 - M) * R``, in place.

    Entries that the mask keeps do not change by a bit. Fresh values depend on (seed, generation, canonical module name)
    alone: not on device, precision, wrappers or the order of modules, and they take nothing from the global random
    streams. They are drawn on the CPU in float32, one module at a time. Frozen and bare parameters are never redrawn.
    Of a DTensor each rank writes its own part, without a word to the others.

    Args:
        model: The network, wrapped or not.
        mask: A bool tensor for every parameter, True where it stays as it is.
        generation: Number of the generation that is opened, from 2 in a run (the first is trained as it is).
        seed: Seed of the whole run.
        reset: How values are drawn: one of `list_resets`, or a `Reset` object. "initial" and "rewind" must have seen
            the network before training, so they are given as objects here.
        norm: "keep" redraws no norm layer; "reset" lets the weights, biases and running statistics of norm layers that
            belong to the reset hypothesis start over.
        exclude: Shell-style patterns of canonical parameter names that are never redrawn, such as "head.*".
        only: Canonical names of the parameters that an optimizer holds; the others are not redrawn. None is all.

    Returns:
        What was redrawn, and what was kept for which reason. That nothing was redrawn is no error here.

    Raises:
        ValueError: If an argument is wrong or the mask belongs to another network.
        TypeError: If an argument is of the wrong type.

    Source:
        "Knowledge Evolution in Neural Networks" (CVPR 2021), section 3.1.

    Example:
        >>> from lightning_ke.splits import draw_mask
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> mask = draw_mask(net, split="wels", rate=0.5)
        >>> before = net[0].weight.detach().clone()
        >>> redraw(net, mask, generation=2).redrawn
        {'0.weight': 32, '2.weight': 8}
        >>> torch.equal(before == net[0].weight, mask["0.weight"])
        True
    """
    check_network(model)
    check_mask(mask)
    generation, seed = whole("generation", generation, least=1), whole("seed", seed, least=0)
    reset = get_reset(reset)
    _check(model, mask, reset, norm)
    excluded = match_patterns(exclude, (name for name, _ in named_parameters(model)))
    kept: dict[str, list[str]] = {"bare": [], "frozen": [], "excluded": [], "unoptimized": []}
    redrawn: dict[str, int] = {}
    restarted: list[str] = []
    with torch.no_grad(), forked_rng() as seed_by:
        for unit in units(model) if reset.redraws else ():
            if unit.kind == "bare":
                kept["bare"] += [unit.canonical(local) for local in unit.parameters]
                continue
            if unit.kind == "norm" and norm == "keep":
                continue
            entries = {}
            for local, parameter in unit.parameters.items():
                name = unit.canonical(local)
                entry = mask.entry(name)
                if entry.count() == parameter.numel():
                    continue
                if name in excluded:
                    kept["excluded"].append(name)
                elif not parameter.requires_grad:
                    kept["frozen"].append(name)
                elif only is not None and name not in only:
                    kept["unoptimized"].append(name)
                else:
                    entries[local] = entry
            buffers = _statistics(unit, mask) if entries or not unit.parameters else {}
            if entries or buffers:
                seed_by(seed, generation, unit.name)
                counts = _redraw_unit(unit, entries, buffers, reset)
                redrawn.update({name: count for name, count in counts.items() if count})
                kept["bare"] += [name for name, count in counts.items() if not count]
                restarted += [unit.canonical(local) for local in buffers]
    return RedrawReport(
        generation,
        redrawn,
        restarted_buffers=tuple(restarted),
        kept_bare=tuple(kept["bare"]),
        kept_frozen=tuple(kept["frozen"]),
        kept_excluded=tuple(kept["excluded"]),
        kept_unoptimized=tuple(kept["unoptimized"]),
    )


def redraw_sets(
    model: nn.Module,
    sets: Sequence[RedrawSet],
    generation: int,
    *,
    seed: int = 0,
    reset: str | Reset = "layer",
    norm: Literal["keep", "reset"] = "keep",
    exclude: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> RedrawReport:
    """Do what a split's `redraws` say, one set after the other; arguments are those of `redraw`.

    A reset that redraws nothing holds for all sets. Norm layers can start over by the first one only.

    Args:
        model: The network.
        sets: What is redrawn, and how where that is not by `reset`.
        generation: As for `redraw`.
        seed: As for `redraw`.
        reset: As for `redraw`.
        norm: As for `redraw`.
        exclude: As for `redraw`.
        only: As for `redraw`.

    Returns:
        What was redrawn in all; an entry that two sets redraw counts twice.

    Example:
        >>> from lightning_ke.resets import Zero
        >>> from lightning_ke.splits.base import RedrawSet
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> sets = [RedrawSet(Mask.from_tensors({"weight": torch.tensor([[at == 0, at == 1]])})) for at in range(2)]
        >>> redraw_sets(layer, [sets[0], RedrawSet(sets[1].survivors, Zero())], generation=2).redrawn
        {'weight': 2}
        >>> layer.weight[0, 0].item(), bool(layer.weight[0, 1] == 0)
        (0.0, False)
    """
    own = get_reset(reset)
    reports = []
    for number, each in enumerate(sets):
        how = own if each.reset is None or not own.redraws else each.reset
        norms: Literal["keep", "reset"] = norm if number == 0 else "keep"
        of_set = each.survivors, generation
        reports.append(redraw(model, *of_set, seed=seed, reset=how, norm=norms, exclude=exclude, only=only))
    redrawn: dict[str, int] = {}
    for report in reports:
        for name, count in report.redrawn.items():
            redrawn[name] = redrawn.get(name, 0) + count
    return replace(reports[0], redrawn=redrawn)


def redrawable(
    model: nn.Module, mask: Mask, norm: Literal["keep", "reset"], exclude: Sequence[str], only: Collection[str]
) -> list[str]:
    """Return the canonical names of the parameters of which a redraw would change something.

    Args:
        model: The network.
        mask: What a redraw leaves as it is.
        norm: As for `redraw`.
        exclude: As for `redraw`.
        only: As for `redraw`.

    Raises:
        ValueError: If a pattern matches no parameter.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        >>> mask = Mask.from_tensors({f"{layer}.weight": torch.eye(2) > 0 for layer in range(2)})
        >>> redrawable(net, mask, norm="keep", exclude=["0.*"], only={"0.weight", "1.weight"})
        ['1.weight']
    """
    excluded = match_patterns(exclude, (name for name, _ in named_parameters(model)))
    kinds = ("layer", "norm") if norm == "reset" else ("layer",)
    named = (
        (unit.canonical(local), parameter)
        for unit in units(model)
        if unit.kind in kinds
        for local, parameter in unit.parameters.items()
    )
    return [
        name
        for name, parameter in named
        if parameter.requires_grad
        and name in only
        and name not in excluded
        and mask.entry(name).count() < parameter.numel()
    ]


def match_patterns(patterns: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return the names that at least one shell-style pattern matches.

    Args:
        patterns: Patterns such as "head.*" or "*.bias".
        names: Canonical parameter names.

    Raises:
        TypeError: If it is no sequence of patterns.
        ValueError: If a pattern matches no name.

    Example:
        >>> sorted(match_patterns(["*.bias"], ["conv.weight", "fc.weight", "fc.bias"]))
        ['fc.bias']
    """
    names = list(names)
    check_patterns("exclude", patterns)
    matched: set[str] = set()
    for pattern in patterns:
        found = {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            below = any(name.startswith(pattern + ".") for name in names)
            some = f"Some of them are {', '.join(map(repr, names[:3]))}."
            raise ValueError(
                f"Expected every pattern in argument `exclude` to match a parameter, but {pattern!r} matches none. "
                "Patterns are compared with whole names. "
                + (f"Did you mean {pattern + '.*'!r}?" if below else did_you_mean(pattern, names, some))
            )
        matched |= found
    return matched


def _check(model: nn.Module, mask: Mask, reset: Reset, norm: str) -> None:
    if not reset.ready:
        raise ValueError(
            f"Expected argument `reset` to have seen the first weights, but {reset.name!r} remembers none. Before "
            f"training: `reset = get_reset({reset.name!r}); reset.remember(model, mask)`; then `redraw(..., "
            "reset=reset)`."
        )
    for name, parameter in named_parameters(model):
        shape = tuple(mask.entry(name).shape) if name in mask else None
        if shape != tuple(parameter.shape):
            raise ValueError(
                f"Expected `mask` to be drawn for this network, but it has "
                f"{'nothing' if shape is None else f'shape {shape}'} for `{name}` of shape {tuple(parameter.shape)}. "
                "Draw it anew by `draw_mask`."
            )
    if norm not in {"keep", "reset"}:
        raise ValueError(f"Expected argument `norm` to be 'keep' or 'reset', but got {norm!r}.")
    if norm == "reset" and mask.structure is None:
        norms = [unit for unit in units(model) if unit.kind == "norm"]
        if norms and all(bool(mask[unit.canonical(local)].all()) for unit in norms for local in unit.parameters):
            raise ValueError(
                "Expected argument `norm` to be 'keep' for a mask in which every norm layer is fit (as splits 'wels' "
                "and 'layers' draw it), but got 'reset'. There is nothing in a norm layer to start over."
            )


def _redraw_unit(unit: Unit, entries: dict[str, Entry], buffers: dict[str, Entry], reset: Reset) -> dict[str, int]:
    """Redraw one module; return how many entries of each parameter were redrawn, by canonical name."""
    layers_own = getattr(reset.draw, "__func__", None) is LayerReset.draw  # and nobody's instead of it
    if layers_own and unit.kind == "layer" and (fills := uniform_fills(unit)) is not None:
        return _redraw_in_pieces(unit, entries, fills)
    stand_in = draw_unit(unit, reset)
    values = stand_in.parameters
    counts = {}
    for local, entry in entries.items():
        name = unit.canonical(local)
        fresh = values[name]
        if tuple(fresh.shape) != entry.shape:
            raise ValueError(
                f"Expected reset {reset.name!r} to draw `{name}` in shape {entry.shape}, but got {tuple(fresh.shape)}."
            )
        drawn = _is_drawn(fresh, entry)
        if not drawn and not reset.keeps_undrawn:
            raise ValueError(
                f"Expected reset {reset.name!r} to draw every redrawn entry of `{name}`, but some are missing. It must "
                "fill all parameters of the module that it is given, and remember the network with the mask in use."
            )
        counts[name] = math.prod(entry.shape) - entry.count() if drawn else 0
        if drawn:
            write(unit.parameters[local], entry, in_pieces(fresh))
    for local, entry in buffers.items():
        write(unit.module.get_buffer(local), entry, in_pieces(stand_in.module.get_buffer(local)))
    return counts


def draw_unit(unit: Unit, reset: Reset) -> StandIn:
    """Draw fresh values of one module into a copy of it.

    Args:
        unit: The module.
        reset: How values are drawn.

    Raises:
        RuntimeError: If the module's reset fails, or writes into the network itself.
    """
    with torch.device("cpu"):  # what a reset builds must not follow a default device of the caller's
        stand_in = StandIn.of(unit)
        start_over = own_reset(stand_in.module)
        if unit.kind == "norm" and start_over is not None:
            start_over()  # fills the running statistics too
        versions = [parameter._version for parameter in unit.parameters.values()]
        reset.draw(stand_in)
    if versions != [parameter._version for parameter in unit.parameters.values()]:
        raise RuntimeError(
            f"Expected `reset_parameters` of `{unit.name or 'model'}` (or reset {reset.name!r}) to fill the module "
            "that it is called on, a copy, but it wrote into the network itself, whose fit weights are lost now. "
            "Make it a method of the module's class."
        )
    return stand_in


def _redraw_in_pieces(unit: Unit, entries: dict[str, Entry], fills: Sequence[UniformFill]) -> dict[str, int]:
    """The same without the module's values ever being there as a whole; what is not redrawn is drawn, too."""
    counts = dict.fromkeys((unit.canonical(local) for local in entries), 0)
    for fill in fills:
        if fill.local in entries:
            entry = entries[fill.local]
            write(unit.parameters[fill.local], entry, fill.pieces())
            counts[unit.canonical(fill.local)] = math.prod(entry.shape) - entry.count()
        else:
            for _ in fill.pieces():
                pass
    return counts


def _statistics(unit: Unit, mask: Mask) -> dict[str, Entry]:
    """The packed masks of a norm layer's running statistics that are not wholly fit."""
    if unit.kind != "norm":
        return {}
    found: dict[str, Entry] = {}
    for local, buffer in unit.module._buffers.items():
        name, weight = join_name(unit.name, local), join_name(unit.name, "weight")
        if buffer is None or buffer.ndim == 0:
            continue
        if mask.structure is not None and name in mask.structure.cuts:
            entry: Entry = Channels(tuple(buffer.shape), name, mask.structure)
        elif weight in mask and mask.entry(weight).shape == tuple(buffer.shape):
            entry = mask.entry(weight)
        else:
            continue
        if entry.count() < buffer.numel():
            found[local] = entry
    return found


def _is_drawn(fresh: Tensor, entry: Entry) -> bool:
    """Whether no entry that is redrawn is NaN any more. The sum is NaN if any entry is, and needs no memory."""
    if not fresh.sum().isnan():
        return True
    pairs = zip(in_pieces(fresh), entry.blocks(rows_at_once(entry.shape)), strict=True)
    return not any(bool(rows[~kept].isnan().any()) for rows, kept in pairs)
