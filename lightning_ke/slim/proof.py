"""The proof that a slim network is its dense network restricted to the fit hypothesis.

Both run on copies in double precision with random weights, norm parameters, statistics and biases: with fresh weights a
comparison says little (last norms start at zero, layer scales at 1e-6). The dense copy knows nothing of cut channels:
the reset hypothesis of its parameters is set to zero, which is what "contributes nothing" means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow.calls import replay_calls
from lightning_ke.flow.copies import private_copy
from lightning_ke.flow.dry import copy_inputs, on_the_cpu, quiet_world, tensors_in
from lightning_ke.flow.registry import FlowError
from lightning_ke.flow.running import entering, train_whole, watching
from lightning_ke.flow.trace import run_calls
from lightning_ke.sharding import has_shards
from lightning_ke.slim.cut import kept_values, refresh
from lightning_ke.slim.double import Double, double_by_default, in_double
from lightning_ke.slim.reference import Reference, without_reset_hypothesis

if TYPE_CHECKING:
    from lightning_ke.masks import Mask
    from lightning_ke.splits.base import Call
    from lightning_ke.structure import Structure

#: Largest difference between the two networks, relative to the largest output; both compute in double precision.
TOLERANCE = 1e-9

#: A sharded network is proved if its copy in double precision, which every rank holds for it, takes at most this.
PROOF_BYTES = 2**30


class SlimError(RuntimeError):
    """No slim network computes the same as the fit hypothesis; the message says where and what to do."""


def verify_slim(slim: nn.Module, model: nn.Module, mask: Mask, example_input: Any = None) -> None:
    """Prove that a slim network holds the fit weights and computes what they compute inside the dense network.

    Args:
        slim: The slim network; it is not changed.
        model: The dense network; it is not changed.
        mask: The mask of a structured split.
        example_input: As for `extract_slim`.

    Raises:
        ValueError: If nothing says how the network is run, or if it does not run in that way.
        SlimError: If the proof fails.
    """
    with on_the_cpu():
        _prove(slim, model, mask, example_input)


def _prove(slim: nn.Module, model: nn.Module, mask: Mask, example_input: Any) -> None:
    from lightning_ke.slim.extract import structure_of

    structure = structure_of(mask)
    calls = calls_of(structure, example_input)
    _same_values(naming.unwrap(slim), naming.unwrap(model), structure)
    dense_copy, slim_copy = private_copy(naming.unwrap(model), in_double), private_copy(naming.unwrap(slim), in_double)
    randomise(dense_copy)
    refresh(slim_copy, dense_copy, structure)
    without_reset_hypothesis(dense_copy, structure)
    for train in (False, True) if structure.train_only else (False,):
        try:
            expected = run_fit(dense_copy, structure, calls, train=train)
        except FlowError:
            raise
        except Exception as error:
            raise ValueError(
                f"Expected the network to run on `example_input`, but it failed ({_first_line(error)}). Pass a tensor, "
                "a tuple of positional or a dict of keyword arguments that its forward accepts."
            ) from error
        if not all(bool(output.isfinite().all()) for output in expected if output.is_floating_point()):
            raise ValueError(
                "Expected the network to return finite numbers, so that two of them can be compared, but with random "
                "weights it returns others. Pass an `example_input` for which it does, such as positive numbers for a "
                "logarithm, or bound what it computes (a `clamp` before a `log` or an `exp`)."
            )
        found = difference(run_slim(slim_copy, calls, train=train), expected)
        culprit = None
        # A network that returns nothing to compare (an object, no detection) is compared module by module.
        if not found <= TOLERANCE or not any(output.numel() for output in expected):
            culprit = first_difference(slim_copy, dense_copy, structure, calls, train=train)
        if culprit is not None or not found <= TOLERANCE:
            differ = f"their outputs differ by {found:.1e} of the largest output, first" if found else "they differ"
            raise SlimError(
                f"Expected the slim network to compute what the fit hypothesis computes, but {differ} in "
                f"{_module(culprit or '')}: its code treats channels in a way "
                "that channel flow does not know. Keep that module out by `target`, or use a split without a slim "
                "network such as `wels`."
            )


def proof_fits(model: nn.Module) -> bool:
    """Return whether a network can be proved here: a rank that holds a part of a large network cannot hold all of it.

    Args:
        model: The dense network.

    Example:
        >>> proof_fits(nn.Linear(2, 2))
        True
    """
    size = 8 * sum(parameter.numel() for _, parameter in naming.named_parameters(model))
    return not has_shards(model) or size <= PROOF_BYTES


def calls_of(structure: Structure, example_input: Any) -> list[Call]:
    """How the network is run in the proof.

    Args:
        structure: It records how the network was run.
        example_input: Used instead of that record if given.

    Raises:
        ValueError: If there is neither.
    """
    from lightning_ke.splits.base import Call

    if example_input is not None:
        if isinstance(example_input, dict):
            return [Call("", (), example_input)]
        return [Call("", tuple(example_input) if isinstance(example_input, (tuple, list)) else (example_input,))]
    if not structure.calls:
        raise ValueError(
            "Expected `example_input`, because the mask does not record how the network is run (it is not called with "
            "tensors and plain containers alone). Pass the input that the mask was drawn with."
        )
    return replay_calls(structure.calls, torch.Generator().manual_seed(0))


def randomise(network: nn.Module) -> None:
    """Give every parameter and norm statistic of a private copy a random value that no output can hide.

    Biases are positive, so that few units of a ReLU network are dead. Weights are large enough to pass on what enters
    their layer, so that an error in the first of many layers still shows in the output.

    Args:
        network: A private copy in double precision.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in naming.named_parameters(network):
            if parameter.dim() > 1 and parameter.numel() > len(parameter):
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.uniform_(1, 2, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for name, buffer in naming.named_buffers(network):
            if name.endswith("running_mean"):
                buffer.uniform_(-1, 0, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)


def run_slim(slim: nn.Module, calls: Sequence[Call], *, train: bool = False) -> list[Tensor]:
    """Run a private copy of the slim network in double precision.

    Args:
        slim: A private copy in double precision.
        calls: How it is run.
        train: Run what runs in train mode only (auxiliary heads); layers that drop or average stay in eval mode.

    Returns:
        The tensors that it returned, in order.
    """
    _set_mode(slim, train)
    modules = dict(naming.named_modules(slim))
    running: list[str] = [""]
    outputs: list[Tensor] = []
    for call in calls:
        args, kwargs = copy_inputs((tuple(call.args), dict(call.kwargs)), in_double)
        try:
            with quiet_world(), double_by_default(), entering(slim, running), Double():
                outputs += tensors_in(modules[call.module](*args, **kwargs))
        except Exception as error:
            raise SlimError(
                f"Expected the slim network to run, but the code of {_module(running[0])} fixes a width "
                f"({_first_line(error)}). Keep that module out by `target`, or use a split without a slim network such "
                "as `wels`."
            ) from error
    return outputs


def run_fit(dense: nn.Module, structure: Structure, calls: Sequence[Call], *, train: bool = False) -> list[Tensor]:
    """Run the fit hypothesis inside a private copy of the dense network in double precision.

    Args:
        dense: A private copy in double precision whose reset hypothesis is zero.
        structure: What is kept.
        calls: How it is run.
        train: As for `run_slim`.

    Returns:
        The tensors that it returned, in order.
    """
    _set_mode(dense, train)
    with double_by_default():
        return run_calls(Reference(dense, structure), dict(naming.named_modules(dense)), calls, in_double)


def first_difference(
    slim: nn.Module, dense: nn.Module, structure: Structure, calls: Sequence[Call], *, train: bool = False
) -> str | None:
    """Name the first module whose slim output is not the kept part of its dense output, None if there is none.

    Args:
        slim: A private copy of the slim network in double precision.
        dense: A private copy of the dense network in double precision whose reset hypothesis is zero.
        structure: What is kept.
        calls: How both are run.
        train: As for `run_slim`.
    """
    seen: list[tuple[str, Tensor]] = []
    with watching(slim, lambda name, output: seen.append((name, output.clone()))):
        run_slim(slim, calls, train=train)
    slim_outputs = iter(seen)
    reference = Reference(dense, structure)
    differing: list[str] = []

    def compare(name: str, output: Tensor) -> None:
        other, expected = next(slim_outputs, ("", output)), reference.kept_part(output)
        if not differing and (other[0] != name or not difference([other[1]], [expected]) <= TOLERANCE):
            differing.append(name)

    _set_mode(dense, train)
    with double_by_default(), watching(dense, compare):
        run_calls(reference, dict(naming.named_modules(dense)), calls, in_double)
    return differing[0] if differing else None


def _module(name: str) -> str:
    return f"module `{name}`" if name else "the network's own forward"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _set_mode(network: nn.Module, train: bool) -> None:
    for module in network.modules():
        module.training = False
    if train:
        train_whole(network)


def difference(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference between two runs' outputs, relative to the largest output of each.

    Args:
        actual: Outputs of the slim network.
        expected: Outputs of the fit hypothesis inside the dense network.
    """
    largest = 0.0
    for left, right in zip(actual, expected, strict=True):
        if left.shape != right.shape or not bool(left.isfinite().all() & right.isfinite().all()):
            return float("inf")
        if left.numel() and not left.is_floating_point():
            largest = max(largest, 0.0 if torch.equal(left, right) else float("inf"))  # numbers of classes, of places
        elif left.numel():
            scale = right.abs().max().item()
            largest = max(largest, (left - right).abs().max().item() / scale if scale else float("inf"))
    return largest


def _same_values(slim: nn.Module, dense: nn.Module, structure: Structure) -> None:
    held = dict((*naming.named_parameters(slim), *naming.named_buffers(slim)))
    for name, tensor in (*naming.named_parameters(dense), *naming.named_buffers(dense)):
        kept = kept_values(structure, name, tensor)
        if name in held and held[name].shape == kept.shape and _equal(held[name], kept):
            continue
        if kept.layout is torch.strided and bool(kept.isnan().any()):  # NaN equals nothing, itself included
            raise SlimError(
                f"Expected the network's values to be numbers, but `{name}` holds NaN: the training has diverged. "
                "Lower the learning rate, or take the weights of an earlier checkpoint."
            )
        raise SlimError(
            f"Expected the slim network to hold the kept values of `{name}`, but it holds others. "
            "Extract it again, or bring it up to date with `refresh`."
        )


def _equal(left: Tensor, right: Tensor) -> bool:
    if left.layout is not torch.strided:  # the adjacency matrix of a graph
        left, right = left.to_dense(), right.to_dense()
    return torch.equal(left, right)
