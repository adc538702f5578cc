"""A share of the operations in place of a share of the channels, and channels in multiples."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models

import lightning_ke as ke
from tests.callback.modules import Classifier, make_trainer, train_loader

IMAGE = torch.zeros(1, 3, 8, 8)


class Branches(nn.Module):
    """A residual stream, groups, unequal branches that are concatenated."""

    def __init__(self, width: int, left: int, right: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.left, self.right = nn.Conv2d(width, left, 1), nn.Conv2d(width, right, 3, padding=1)
        self.head = nn.Linear(left + right, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.body(x)
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))


def share_of(network: nn.Module, mask: ke.Mask, example: Tensor = IMAGE) -> float:
    """The share of the operations that a slim network really needs."""
    slim = ke.extract_slim(network, mask, verify=False)
    return ke.measure_cost(slim, example).ops / ke.measure_cost(network, example).ops


def every_share(network: nn.Module, counts: set[int], **options: Any) -> list[float]:
    """The shares of all the slim networks that a rate can ask for."""
    steps = sorted({Fraction(kept, count) for count in counts for kept in range(count + 1)})
    shares = []
    for low, high in itertools.pairwise(steps):
        try:
            mask = ke.draw_mask(network, ke.Kels(float(low + high) / 2, **options), example_input=IMAGE)
        except ValueError:  # all of it would be fit
            continue
        shares.append(share_of(network, mask))
    return shares


@settings(max_examples=8)
@given(
    width=st.integers(2, 5).map(lambda half: 2 * half),
    left=st.integers(2, 7),
    right=st.integers(2, 7),
    place=st.floats(0.0, 0.99),
    round_to=st.sampled_from([None, 2, 3]),
    split=st.sampled_from([ke.Kels, ke.Importance]),
)
def test_no_larger_rate_needs_as_little(
    width: int, left: int, right: int, place: float, round_to: int | None, split: Any
) -> None:
    network = Branches(width, left, right)
    shares = every_share(network, {2, width, left, right}, round_to=round_to)
    assume(shares)
    least = min(shares)
    with pytest.raises(ValueError, match=rf"the smallest slim network needs {least:.4f} of the operations"):
        ke.draw_mask(network, split(ops=0.99 * least, round_to=round_to), example_input=IMAGE)
    ops = least + place * (1 - least)
    mask = ke.draw_mask(network, split(ops=ops, round_to=round_to), example_input=IMAGE)
    assert mask.structure is not None
    assert mask.structure.ops == pytest.approx(share_of(network, mask))
    assert mask.structure.ops == pytest.approx(max(share for share in shares if share <= ops))
    # The rate that it states draws the same mask.
    assert ke.draw_mask(network, split(mask.structure.rate, round_to=round_to), example_input=IMAGE) == mask


def test_the_summary_says_rate_and_share() -> None:
    network = models.resnet18()
    example = torch.zeros(1, 3, 64, 64)
    mask = ke.draw_mask(network, ops=0.25, example_input=example)
    assert mask.structure is not None
    share, rate = mask.structure.ops, mask.structure.rate
    assert share is not None
    assert 0.24 < share <= 0.25
    assert share_of(network, mask, example) == pytest.approx(share)
    last = str(mask).splitlines()[-1]
    assert last == f"operations {100 * share:.1f} % of the dense network's, at rate {rate} (solved for)"
    again = ke.Mask.from_state_dict(mask.state_dict())
    assert str(again) == str(mask)
    assert "operations" not in str(ke.draw_mask(network, rate=0.5, example_input=example))


def test_kept_channels_come_in_multiples() -> None:
    network = models.mobilenet_v2()
    for split in (ke.Kels(0.3, round_to=8), ke.Kels(ops=0.2, round_to=8), ke.Importance(0.3, round_to=8)):
        mask = ke.draw_mask(network, split, example_input=torch.zeros(1, 3, 32, 32))
        slim = ke.extract_slim(network, mask, verify=False)
        widths = {module.out_channels for module in slim.modules() if isinstance(module, nn.Conv2d)}
        assert len(widths) > 5
        assert all(width % 8 == 0 for width in widths)
    assert share_of(network, ke.draw_mask(network, split, example_input=torch.zeros(1, 3, 32, 32)), IMAGE) < 0.3


def test_rounding_up_keeps_no_less() -> None:
    network = models.mobilenet_v3_small()
    plain, rounded = (
        ke.draw_mask(network, ke.Kels(0.3, round_to=to), example_input=torch.zeros(1, 3, 32, 32)) for to in (None, 8)
    )
    assert all(bool((rounded[name] | ~plain[name]).all()) for name in plain)
    assert rounded.fit_share > plain.fit_share


def test_a_target_leaves_the_rest_as_it_costs() -> None:
    inner = nn.Sequential(nn.Conv2d(16, 8, 3), nn.Conv2d(8, 16, 1))
    network = nn.Sequential(nn.Conv2d(3, 16, 3), inner, nn.Conv2d(16, 5, 1))
    with pytest.raises(ValueError, match=r"the smallest slim network needs 0\.\d{4} of the operations") as refused:
        ke.draw_mask(network, ke.Kels(ops=0.05), example_input=IMAGE, target="1")
    least = float(re.search(r"needs (0\.\d{4})", str(refused.value))[1])
    mask = ke.draw_mask(network, ke.Kels(ops=least + 1e-4), example_input=IMAGE, target="1")
    assert share_of(network, mask) == pytest.approx(least, abs=1e-4)
    with pytest.raises(ValueError, match=r"Expected `target` '1.0' to have channels .* but all of them must be kept"):
        ke.draw_mask(network, ke.Kels(ops=0.5), example_input=IMAGE, target="1.0")


def test_a_network_that_looks_at_values_is_measured_with_data() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 20), nn.Linear(20, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).relu() if float(x.sum()) >= 0 else self.one(x))

    network, example = Looks(), torch.zeros(1, 4)
    mask = ke.draw_mask(network, ops=0.5, example_input=example)
    assert share_of(network, mask, example) == 0.5


def test_the_network_is_left_as_it_was() -> None:
    network = Branches(8, 6, 4).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    ke.draw_mask(network, ops=0.4, example_input=IMAGE)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("split", [ke.Kels, ke.Importance])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"ops": 1.5}, "argument `ops` to be in (0, 1), but got 1.5. It is the share of the network's operations"),
        ({"ops": 0}, "Expected argument `ops` to be in (0, 1), but got 0."),
        ({"ops": True}, "Expected argument `ops` to be in (0, 1), but got True."),
        ({"rate": 1.0}, "Expected argument `rate` to be in (0, 1), but got 1.0."),
        ({"rate": 0.5, "ops": 0.25}, "Expected argument `rate` to be None next to `ops=0.25`, which decides it"),
        ({"round_to": 0}, "Expected argument `round_to` to be a whole number of at least 1 or None, but got 0."),
        ({"round_to": 8.0}, "Expected argument `round_to` to be a whole number"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(split: Any, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        split(**arguments)


def test_operations_mean_nothing_to_other_splits() -> None:
    with pytest.raises(ValueError, match="`ops` to be None for split 'wels', which has no slim network"):
        ke.draw_mask(nn.Linear(2, 2), "wels", ops=0.5)
    with pytest.raises(ValueError, match=re.escape("`ops` to be None next to the split object Kels(rate=0.5)")):
        ke.KnowledgeEvolution(ke.Kels(), ops=0.5)


def test_a_split_shows_what_was_asked_for() -> None:
    assert repr(ke.Kels()) == "Kels(rate=0.5)"
    assert repr(ke.Importance(ops=0.25, round_to=8)) == "Importance(ops=0.25, round_to=8)"
    assert ke.Kels() == ke.Kels(0.5) != ke.Kels(ops=0.5)


def fit(folder: Path, epochs: int, checkpoint: Path | None = None, **options: Any) -> ke.KnowledgeEvolution:
    evolution = ke.KnowledgeEvolution(epochs_per_generation=1, score_fit=False, seed=0, **options)
    trainer = make_trainer(folder, max_epochs=epochs, callbacks=[evolution])
    trainer.fit(Classifier(), train_loader(), ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "end.ckpt")
    return evolution


def test_a_run_resumes_with_what_it_asked_for_and_nothing_else(tmp_path: Path) -> None:
    whole = fit(tmp_path, 2, ops=0.3)
    resumed = fit(tmp_path / "resumed", 3, tmp_path / "end.ckpt", ops=0.3)
    assert whole.mask is not None
    assert resumed.mask == whole.mask
    assert str(resumed.mask) == str(whole.mask)
    assert whole.mask.structure is not None
    for other in (
        {"ops": 0.4},
        {"rate": whole.mask.structure.rate},
        {"split": ke.Kels(ops=0.3, round_to=2)},
    ):
        with pytest.raises(ValueError, match="as in the checkpoint"):
            fit(tmp_path, 4, tmp_path / "end.ckpt", **other)
