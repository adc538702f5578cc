"""State that goes from one optimizer to the next: redrawn entries do not jump, fit entries do not notice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_ke.optimizer_state import carry_state

LR = 1e-3
SHAPE = (64, 64)
Build = Callable[[Iterable[nn.Parameter]], Optimizer]


def noisy_step(optimizer: Optimizer, weight: nn.Parameter, generator: torch.Generator) -> Tensor:
    """One step on a noisy gradient with a weak trend; returns by how many learning rates each entry moved."""
    weight.grad = 0.3 + torch.randn(SHAPE, generator=generator)
    before = weight.detach().clone()
    optimizer.step()
    return (weight.detach() - before).abs() / LR


def trained(build: Build, steps: int = 300) -> tuple[nn.Parameter, Optimizer, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.zeros(SHAPE))
    optimizer = build([weight])
    for _ in range(steps):
        noisy_step(optimizer, weight, generator)
    return weight, optimizer, generator


def half() -> Tensor:
    member = torch.zeros(SHAPE, dtype=torch.bool)
    member[:, 32:] = True
    return member


def moves(build: Build, hand_over: Callable[[Optimizer, Optimizer, nn.Parameter], None], steps: int) -> Tensor:
    """How far the entries move in each step after a redraw, in learning rates, shape (steps, 64, 64)."""
    weight, old, generator = trained(build)
    with torch.no_grad():
        weight[half()] = 1
    new = build([weight])
    hand_over(old, new, weight)
    return torch.stack([noisy_step(new, weight, generator) for _ in range(steps)])


def cleared(old: Optimizer, new: Optimizer, weight: nn.Parameter) -> None:
    carry_state(old, new, {weight: half()}, mode="clear")


def kept(old: Optimizer, new: Optimizer, weight: nn.Parameter) -> None:
    carry_state(old, new, {weight: half()}, mode="keep")


def moments_zeroed(old: Optimizer, new: Optimizer, weight: nn.Parameter) -> None:
    carry_state(old, new, {}, mode="keep")
    for key in ("exp_avg", "exp_avg_sq"):
        new.state[weight][key][half()] = 0


def step_zeroed(old: Optimizer, new: Optimizer, weight: nn.Parameter) -> None:
    moments_zeroed(old, new, weight)
    new.state[weight]["step"].zero_()


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW])
def test_adams_redrawn_entries_start_small_and_fit_entries_do_not_notice(cls: type[Optimizer]) -> None:
    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return cls(parameters, lr=LR, weight_decay=0)

    # A long average of the second moment takes its time: the measurement is of an optimizer in its steady state.
    clear, keep = moves(build, cleared, 60), moves(build, kept, 60)
    steady = float(keep[:, ~half()].mean())
    assert steady == pytest.approx(0.31, abs=0.02)
    redrawn = clear[:, half()].mean(1)
    assert float(redrawn[0]) == pytest.approx(0.08, abs=0.02)
    assert float(redrawn[-20:].mean()) == pytest.approx(steady, rel=0.1)
    assert float(redrawn.max()) < 1.3 * steady
    assert torch.equal(clear[:, ~half()], keep[:, ~half()])


def test_what_the_rule_for_adam_avoids() -> None:
    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return torch.optim.Adam(parameters, lr=LR)

    # Moments zeroed and step kept: redrawn entries jump. Step zeroed too: fit entries crawl. Both were measured first.
    assert float(moves(build, moments_zeroed, 1)[0, half()].mean()) > 1
    assert float(moves(build, step_zeroed, 20)[:, ~half()].mean()) < 0.15


def test_amsgrad_and_sgd_momentum() -> None:
    weight, old, _ = trained(lambda parameters: torch.optim.Adam(parameters, lr=LR, amsgrad=True))
    fit_mean = old.state[weight]["max_exp_avg_sq"][~half()].mean()
    new = torch.optim.Adam([weight], lr=LR, amsgrad=True)
    cleared(old, new, weight)
    torch.testing.assert_close(new.state[weight]["max_exp_avg_sq"][half()], fit_mean.expand(64 * 32))

    weight, old, _ = trained(lambda parameters: torch.optim.SGD(parameters, lr=LR, momentum=0.9))
    momentum = old.state[weight]["momentum_buffer"].clone()
    new_sgd = torch.optim.SGD([weight], lr=LR, momentum=0.9)
    cleared(old, new_sgd, weight)
    assert (new_sgd.state[weight]["momentum_buffer"][half()] == 0).all()
    assert torch.equal(new_sgd.state[weight]["momentum_buffer"][~half()], momentum[~half()])


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.SGD(p, lr=LR),
        lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, nesterov=True),
        lambda p: torch.optim.RMSprop(p, lr=LR, momentum=0.9, centered=True),
        lambda p: torch.optim.Adagrad(p, lr=LR),
        lambda p: torch.optim.Adadelta(p, lr=LR),
        lambda p: torch.optim.Adamax(p, lr=LR),
        lambda p: torch.optim.NAdam(p, lr=LR),
        lambda p: torch.optim.RAdam(p, lr=LR),
        lambda p: torch.optim.Rprop(p, lr=LR),
        lambda p: torch.optim.ASGD(p, lr=LR),
    ],
)
def test_with_every_other_optimizer_redrawn_entries_keep_pace_and_fit_entries_do_not_notice(build: Build) -> None:
    clear, keep = moves(build, cleared, 30), moves(build, kept, 30)
    assert torch.equal(clear[:, ~half()], keep[:, ~half()])
    # A first step of Rprop is one learning rate by definition; the others stay near the pace that they had.
    assert clear[:, half()].mean(1).max() <= max(1.001, 2 * float(keep[:, ~half()].mean(1).max()))


def test_averaged_weights_and_step_sizes_start_over() -> None:
    weight, old, _ = trained(lambda p: torch.optim.Rprop(p, lr=LR), steps=20)
    new = torch.optim.Rprop([weight], lr=0.5)
    cleared(old, new, weight)
    assert (new.state[weight]["step_size"][half()] == 0.5).all()

    weight, old, _ = trained(lambda p: torch.optim.ASGD(p, lr=LR, t0=1), steps=20)
    with torch.no_grad():
        weight[half()] = 7
    average = torch.optim.ASGD([weight], lr=LR)
    cleared(old, average, weight)
    assert (average.state[weight]["ax"][half()] == 7).all()
    assert not (average.state[weight]["ax"][~half()] == 7).any()


def test_a_wholly_redrawn_tensor_starts_without_state() -> None:
    weight, old, _ = trained(lambda p: torch.optim.Adam(p, lr=LR), steps=3)
    new = torch.optim.Adam([weight], lr=LR)
    carry_state(old, new, {weight: torch.ones(SHAPE, dtype=torch.bool)}, mode="clear")
    assert weight not in new.state


def test_param_groups_stay_those_of_the_new_optimizer_and_parameters_are_matched_by_identity() -> None:
    shared, gone, fresh = (nn.Parameter(torch.ones(3)) for _ in range(3))
    old = torch.optim.Adam([gone, shared], lr=0.5)
    for parameter in (gone, shared):
        parameter.grad = torch.ones(3)
    old.step()
    expected = copy.deepcopy(old.state[shared])
    new = torch.optim.Adam([{"params": [fresh]}, {"params": [shared], "lr": 0.25}], lr=0.125)
    carry_state(old, new, {}, mode="keep")
    assert [group["lr"] for group in new.param_groups] == [0.125, 0.25]
    assert list(new.state) == [shared]
    assert all(torch.equal(value, expected[key]) for key, value in new.state[shared].items())


def test_members_may_be_made_when_they_are_needed() -> None:
    weight, old, _ = trained(lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9), steps=2)
    new = torch.optim.SGD([weight], lr=LR, momentum=0.9)
    carry_state(old, new, {weight: half}, mode="clear")
    assert torch.equal(new.state[weight]["momentum_buffer"] == 0, half())


def test_optimizers_of_different_classes_are_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="new optimizer to be a SGD as the old one, but got Adam"):
        carry_state(torch.optim.SGD([weight]), torch.optim.Adam([weight]), {}, mode="keep")


def test_an_unknown_mode_is_refused() -> None:
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="Expected argument `mode` to be 'keep' or 'clear', but got 'new'"):
        carry_state(torch.optim.SGD([weight]), torch.optim.SGD([weight]), {}, mode="new")


def test_state_that_belongs_to_rows_and_columns_is_refused_by_name() -> None:
    weight, old, _ = trained(lambda p: torch.optim.Adafactor(p, lr=LR), steps=2)
    new = torch.optim.Adafactor([weight], lr=LR)
    with pytest.raises(ValueError, match=r"'row_var' of Adafactor .* Use `optimizer='new'`"):
        cleared(old, new, weight)
    kept(old, new, weight)
    assert set(new.state[weight]) >= {"row_var", "col_var"}


def test_state_of_unknown_meaning_is_refused_by_name() -> None:
    weight = nn.Parameter(torch.ones(3))
    old, new = (torch.optim.LBFGS([weight], max_iter=3) for _ in range(2))

    def closure() -> Tensor:
        old.zero_grad()
        loss = (weight**2).sum()
        loss.backward()
        return loss

    old.step(closure)
    with pytest.raises(ValueError, match="of LBFGS is none that is known to be"):
        carry_state(old, new, {weight: torch.tensor([True, False, False])}, mode="clear")


def test_no_device_has_to_have_double_precision() -> None:
    class Without(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            assert not isinstance(made, Tensor) or made.dtype is not torch.float64
            return made

    weight = nn.Parameter(torch.ones(4))
    old, new = (Adam([weight], lr=0.1) for _ in range(2))
    weight.grad = torch.tensor([1.0, 2.0, 3.0, 4.0])
    old.step()
    with Without():
        carry_state(old, new, {weight: torch.tensor([True, False, False, True])}, mode="clear")
    assert new.state[weight]["exp_avg_sq"][0] == pytest.approx(6.5e-3)
