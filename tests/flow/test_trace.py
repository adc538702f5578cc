"""How a network is followed: what is refused, what is left alone, what falls back to a run with data."""

from __future__ import annotations

import logging
import random
import re
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import lightning_ke as ke
from lightning_ke.flow import FlowError, Operation, decide_structure, register_rule
from lightning_ke.flow.registry import _RULES
from lightning_ke.masks import Mask
from lightning_ke.slim import SlimError, extract_slim
from lightning_ke.splits.base import Call
from lightning_ke.structure import Structure

IMAGE = torch.zeros(1, 3, 6, 6)


def structure_of(network: nn.Module, *args: object, rate: float = 0.5, **kwargs: object) -> Structure:
    return decide_structure(network, [Call("", args, kwargs)], rate)


def slim_of(network: nn.Module, structure: Structure) -> nn.Module:
    mask = Mask.from_structure(structure, {name: tuple(p.shape) for name, p in network.named_parameters()})
    return extract_slim(network, mask)


class Unusual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 8, 1))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.frac(torch.cummax(self.inner(x), 2)[0]))


def test_an_operation_without_a_rule_fails_by_name() -> None:
    with pytest.raises(FlowError, match=re.escape("there is none for `aten.cummax.default`")) as caught:
        structure_of(Unusual(), IMAGE)
    assert "register_rule(torch.ops.aten.cummax.default)" in str(caught.value)


def test_a_registered_rule_is_used() -> None:
    @register_rule(torch.ops.aten.cummax)
    def cummax(op: Operation) -> None:
        for output in op.outputs:
            op.label(output, op.labels(op.args[0]).layers)

    try:
        network = Unusual()
        assert slim_of(network, structure_of(network, IMAGE)).head.in_channels == 4
    finally:
        del _RULES[str(torch.ops.aten.cummax)]


def test_code_that_fixes_a_width_is_named() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(len(x), 8, -1).mean(2)

    network = nn.Sequential(nn.Conv2d(3, 8, 1), Fixed(), nn.Linear(8, 2))
    structure = structure_of(network, IMAGE)
    assert structure.count("0.bias") == 4
    with pytest.raises(SlimError, match=r"module `[12]`"):
        slim_of(network, structure)


def test_code_that_asserts_a_width_is_named_although_it_says_nothing() -> None:
    class Asserted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 8:
                raise AssertionError
            return x

    network = nn.Sequential(nn.Conv2d(3, 8, 1), Asserted(), nn.Conv2d(8, 2, 1))
    with pytest.raises(SlimError, match=r"module `1` fixes a width \(AssertionError\)"):
        slim_of(network, structure_of(network, IMAGE))


def test_a_network_that_looks_at_values_is_followed_with_data(caplog: pytest.LogCaptureFixture) -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x) if x.sum().item() > 0 else self.body(-x))

    network = Looks()
    before = [p.clone() for p in network.parameters()]
    with caplog.at_level(logging.INFO, "lightning_ke"):
        structure = structure_of(network, torch.ones(1, 3))
    assert "with data" in caplog.text
    assert structure.count("body.bias") == 4
    assert all(torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_scripted_module_is_named() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8)), scripted, nn.Linear(8, 2))
    with pytest.raises(FlowError, match=r"`1` was compiled by `torch.jit`"):
        structure_of(network, torch.zeros(1, 3))
    mask = ke.draw_mask(network, "kels", rate=0.5, target="0", example_input=torch.zeros(1, 3))
    assert not mask["0.0.weight"].all()
    assert mask["1.0.weight"].all()
    assert not ke.draw_mask(network, "wels", rate=0.5)["2.weight"].all()


def test_a_network_that_does_not_run_says_so() -> None:
    with pytest.raises(FlowError, match=r"neither without data .* nor with data"):
        structure_of(nn.Linear(3, 2), torch.zeros(1, 4))


def test_the_network_is_left_as_it_was() -> None:
    class Caches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm, self.head = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
            self.cache: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.cache = self.norm(self.body(x))
            return self.head(nn.functional.dropout(self.cache, 0.5))

    network = Caches().train()
    network.norm.eval()
    hook = network.body.register_forward_hook(lambda *_: None)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    structure_of(network, torch.ones(4, 3))
    assert network.cache is None
    assert [network.training, network.body.training, network.norm.training] == [True, True, False]
    assert list(network.body._forward_hooks) == [hook.id]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert all(p.grad is None for p in network.parameters())
    assert nn.modules.module._global_forward_hooks == {}
    assert nn.modules.module._global_forward_pre_hooks == {}


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2)), "`0.weight` belongs to a lazy module"),
        (nn.Sequential(nn.Linear(3, 8, dtype=torch.cfloat)), "`0.weight` is torch.complex64"),
    ],
)
def test_parameters_without_channels_are_refused_by_name(network: nn.Module, named: str) -> None:
    with pytest.raises(FlowError, match=re.escape(named)):
        structure_of(network, torch.zeros(1, 3))


@dataclass
class Result:
    logits: Tensor
    extra: dict[str, list[Tensor]]


class Containers(nn.Module):
    """Takes and returns nested containers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head, self.side = nn.Linear(3, 8), nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 6)

    def forward(self, batch: dict[str, list[Tensor]], *, scale: float = 1.0) -> Result:
        x = scale * self.one(batch["x"][0]) + self.other(batch["x"][1])
        return Result(self.head(x), {"side": [self.side(x)]})


def test_containers_and_keyword_arguments() -> None:
    network = Containers()
    structure = structure_of(network, {"x": [torch.zeros(2, 3), torch.zeros(2, 4)]}, scale=2.0)
    slim = slim_of(network, structure)
    assert [tuple(p.shape) for p in slim.parameters() if p.dim() > 1] == [(4, 3), (4, 4), (2, 4), (6, 4)]


def test_what_train_mode_alone_reaches_is_traced_and_what_nothing_reaches_is_named() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
            self.auxiliary = nn.Sequential(nn.Linear(8, 6), nn.Dropout(), nn.Linear(6, 2))
            self.idle = nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            x = self.body(x)
            return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)

    network = Heads()
    with pytest.warns(UserWarning, match=re.escape("idle.weight, idle.bias")):
        structure = structure_of(network, torch.zeros(1, 3))
    assert structure.unreached == ("idle.weight", "idle.bias")
    assert set(structure.train_only) == {f"auxiliary.{index}.{kind}" for index in (0, 2) for kind in ("weight", "bias")}
    slim = slim_of(network, structure)
    assert slim.auxiliary[0].weight.shape == (3, 4)
    assert slim.idle.weight.shape == (7, 5)


def test_calls_are_recorded_in_plain_types(tmp_path: object) -> None:
    structure = structure_of(Containers(), {"x": [torch.zeros(2, 3), torch.zeros(2, 4)]}, scale=2.0)
    path = f"{tmp_path}/structure.pt"
    torch.save(structure.state_dict(), path)
    loaded = Structure.from_state_dict(torch.load(path, weights_only=True))
    slim_of(Containers(), loaded)
    assert loaded.calls[0]["kwargs"]["items"]["scale"] == {"kind": "plain", "value": 2.0}


def test_a_lightning_module_leaves_its_trainer_alone() -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    module = Module()
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, barebones=True)
    module.trainer = trainer
    slim = slim_of(module, structure_of(module, torch.zeros(1, 3)))
    assert module.trainer is trainer
    assert slim._trainer is None
