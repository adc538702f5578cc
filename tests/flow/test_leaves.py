"""Parameters and buffers: whose variables they have, and what becomes of those that a failed run has met."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_ke.flow import decide_structure
from lightning_ke.flow.trace import Trace, trace
from lightning_ke.splits.base import Call

IMAGE = torch.zeros(1, 3, 6, 6)
BUFFERS = "norm.running_mean", "norm.running_var"


def traced(network: nn.Module, target: str | None = None) -> Trace:
    return trace(network.eval(), [Call("", (IMAGE,))], target)


def test_what_lies_on_channels_that_are_there_has_their_variables() -> None:
    found = traced(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3)))
    leaves = found.leaves
    made = leaves["0.weight"].dims[0]
    assert made is not None
    assert leaves["0.bias"].dims == leaves["1.running_mean"].dims == leaves["1.running_var"].dims == (made,)
    assert leaves["1.bias"].dims == leaves["1.weight"].dims != (made,)  # not the convolution's: a factor is put on one
    assert leaves["2.weight"].dims == (leaves["2.bias"].dims[0], *leaves["1.weight"].dims, None, None)
    # The two convolutions' outputs, the norm's weight, and the one that is always kept.
    assert found.variables.count == 8 + 8 + 2 + 1


def test_a_factor_is_put_where_channels_are_made_not_where_they_are_read() -> None:
    leaves = traced(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))).leaves
    reads = {name: leaf.reads for name, leaf in leaves.items()}
    assert reads["1.running_mean"] == reads["1.running_var"] == (0,)
    assert 1 in reads["2.weight"]
    assert 0 not in reads["2.weight"]
    assert not any(reads[name] for name in ("0.bias", "1.weight", "1.bias", "2.bias"))


def test_outside_of_the_target_nothing_has_variables() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)))
    leaves = traced(network, target="1").leaves
    assert leaves["0.weight"].met
    assert leaves["0.weight"].dims == (None,) * 4
    assert leaves["1.0.weight"].dims[0] is not None


class Twice(nn.Module):
    """One convolution and norm, run on two inputs that come from different layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.shared, self.norm, self.head = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.shared(self.one(x))) * self.norm(self.shared(self.other(x))))


def test_a_layer_that_runs_twice_joins_what_it_reads() -> None:
    network = Twice().eval()
    structure = decide_structure(network, [Call("", (IMAGE,))], 0.5)
    one, other, shared = (structure.cuts[f"{name}.weight"].axes for name in ("one", "other", "shared"))
    assert one[0] == other[0] == shared[1] >= 0


class Auxiliary(nn.Module):
    """A head that runs in train mode, and then asks for what a trace does not have."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.aux, self.norm = nn.Conv2d(8, 4, 1), nn.BatchNorm2d(8)
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.training:
            self.aux(self.norm(x))
            if self.fails:
                raise RuntimeError("no targets")
        return self.head(x)


@pytest.mark.filterwarnings("ignore:The forward does not reach")
def test_what_a_failed_run_has_met_stays_whole_buffers_included() -> None:
    cuts = [set(decide_structure(Auxiliary(fails), [Call("", (IMAGE,))], 0.5).cuts) for fails in (False, True)]
    assert cuts[0] - cuts[1] == {*BUFFERS, "norm.weight", "norm.bias", "aux.weight", "aux.bias"}
    assert cuts[1] == {"stem.weight", "stem.bias", "head.weight"}
