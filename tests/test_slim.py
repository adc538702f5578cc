"""Slim networks: the same function as the fit hypothesis, proved, and proved to be provable."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from lightning_ke import naming
from lightning_ke.flow import decide_structure
from lightning_ke.flow.calls import replay_calls
from lightning_ke.flow.copies import private_copy
from lightning_ke.masks import Mask
from lightning_ke.slim import SlimError, extract_slim, refresh, verify_slim
from lightning_ke.slim.double import in_double
from lightning_ke.slim.proof import TOLERANCE, difference, randomise, run_fit, run_slim
from lightning_ke.slim.reference import without_reset_hypothesis
from lightning_ke.splits.base import Call

IMAGE = (torch.zeros(1, 3, 64, 64),)


def draw(network: nn.Module, rate: float, *args: Any) -> Mask:
    structure = decide_structure(network, [Call("", args or IMAGE)], rate)
    return Mask.from_structure(structure, {name: tuple(p.shape) for name, p in naming.named_parameters(network)})


def missed_corruptions(network: nn.Module, mask: Mask) -> list[str]:
    """Corrupt kept slices of every tensor in turn; return those tensors for which the proof never fails."""
    assert mask.structure is not None
    structure = mask.structure
    calls = replay_calls(structure.calls, torch.Generator().manual_seed(1))
    slim, dense = (private_copy(module, in_double) for module in (extract_slim(network, mask, verify=False), network))
    randomise(dense)
    refresh(slim, dense, structure)
    without_reset_hypothesis(dense, structure)
    expected = {train: run_fit(dense, structure, calls, train=train) for train in {False, bool(structure.train_only)}}
    floating = [(n, b) for n, b in naming.named_buffers(slim) if b.is_floating_point()]
    missed = []
    for name, tensor in (*naming.named_parameters(slim), *floating):
        train = name.rpartition(".")[0] + ".weight" in structure.train_only
        # A unit of a ReLU network may be dead for this input, so a few slices are tried.
        for index in torch.randperm(tensor.shape[0], generator=torch.Generator().manual_seed(0))[:4].tolist():
            original = tensor.detach()[index].clone()
            with torch.no_grad():
                tensor[index] += original.abs().mean()
            found = difference(run_slim(slim, calls, train=train), expected[train])
            with torch.no_grad():
                tensor[index] = original
            if found > TOLERANCE:
                break
        else:
            missed.append(name)
    return missed


class Residual(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Sequential(nn.Conv2d(width, 12, 1), nn.ReLU(), nn.Conv2d(12, width, 1))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.body(x)).mean((2, 3)))


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121", "googlenet"])
def test_slim_networks_of_the_paper_are_proved(name: str, rate: float) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=7, **options)
    mask = draw(network, rate)
    slim = extract_slim(network, mask)
    assert type(slim) is type(network)
    assert [n for n, _ in slim.named_parameters()] == [n for n, _ in network.named_parameters()]
    for key, parameter in slim.named_parameters():
        assert parameter.numel() == int(mask[key].sum())
        assert torch.equal(parameter.flatten(), dict(network.named_parameters())[key][mask[key]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnet101", "densenet161", "densenet169", "densenet201", "vgg11_bn"])
def test_larger_slim_networks_of_the_paper_are_proved(name: str) -> None:
    network = torchvision.models.get_model(name, weights=None, num_classes=7)
    for rate in (0.3, 0.8):
        extract_slim(network, draw(network, rate))


def test_a_corrupted_kept_slice_is_caught() -> None:
    network = Residual()
    assert missed_corruptions(network, draw(network, 0.5)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121", "googlenet"])
def test_a_corrupted_kept_slice_is_caught_in_the_networks_of_the_paper(name: str) -> None:
    options = {"init_weights": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=3, **options)
    assert missed_corruptions(network, draw(network, 0.5)) == []


def test_the_dense_network_is_left_as_it_was() -> None:
    network = Residual()
    calls: list[int] = []
    network.stem.register_forward_hook(lambda *_: calls.append(1) or None)
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    extract_slim(network, draw(network, 0.5))
    assert network.training
    assert network.norm.training
    assert len(network.stem._forward_hooks) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_attributes_tell_the_truth() -> None:
    slim = extract_slim(Residual(), draw(Residual(), 0.5))
    assert (slim.stem.in_channels, slim.stem.out_channels) == (3, 4)
    assert slim.norm.num_features == 4
    assert (slim.body[0].in_channels, slim.body[0].out_channels) == (4, 6)
    assert (slim.head.in_features, slim.head.out_features) == (4, 5)


def test_a_slim_network_trains_and_copies() -> None:
    network = Residual()
    slim = copy.deepcopy(extract_slim(network, draw(network, 0.5)))
    optimizer = torch.optim.SGD(slim.parameters(), lr=0.1)
    before = slim.head.weight.detach().clone()
    slim(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, slim.head.weight)


def test_frozen_parameters_stay_frozen() -> None:
    network = Residual()
    network.stem.requires_grad_(False)
    slim = extract_slim(network, draw(network, 0.5))
    assert [p.requires_grad for p in slim.parameters()] == [p.requires_grad for p in network.parameters()]


def test_refresh_brings_new_values_into_the_old_storage() -> None:
    network = Residual()
    mask = draw(network, 0.5)
    slim = extract_slim(network, mask)
    storage = [tensor.data_ptr() for tensor in slim.state_dict().values()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
    network.norm.running_mean.fill_(3.0)
    with pytest.raises(SlimError, match=re.escape("kept values of `stem.weight`")):
        verify_slim(slim, network, mask)
    assert mask.structure is not None
    refresh(slim, network, mask.structure)
    verify_slim(slim, network, mask)
    assert slim.norm.running_mean.tolist() == [3.0] * 4
    assert [tensor.data_ptr() for tensor in slim.state_dict().values()] == storage


def test_a_slim_network_with_other_values_is_refused() -> None:
    network = Residual()
    mask = draw(network, 0.5)
    slim = extract_slim(network, mask)
    with torch.no_grad():
        slim.body[2].weight[1, 2] += 1e-3
    with pytest.raises(SlimError, match=re.escape("`body.2.weight`")):
        verify_slim(slim, network, mask)


def test_a_network_that_has_diverged_is_named_as_such() -> None:
    network = Residual()
    mask = draw(network, 0.5, torch.zeros(1, 3, 8, 8))
    with torch.no_grad():
        network.stem.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(SlimError, match=re.escape("`stem.weight` holds NaN: the training has diverged")):
        extract_slim(network, mask)


def test_an_unstructured_mask_is_refused() -> None:
    network = Residual()
    mask = Mask.from_tensors({name: torch.rand(p.shape) > 0.5 for name, p in network.named_parameters()})
    with pytest.raises(ValueError, match="structured split such as `kels`"):
        extract_slim(network, mask)


def test_the_mask_of_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Expected `stem.weight` to have the shape (16, 3, 3, 3)")):
        extract_slim(Residual(8), draw(Residual(16), 0.5))
    with pytest.raises(ValueError, match=r"kept channels of `.*`, which Linear does not have"):
        extract_slim(nn.Linear(2, 2), draw(Residual(), 0.5))


@pytest.mark.parametrize(
    "mask", [None, {"stem.weight": torch.ones(16, 3, 3, 3, dtype=torch.bool)}], ids=["None", "dict"]
)
def test_what_is_no_mask_is_refused(mask: Any) -> None:
    with pytest.raises(TypeError, match="Expected argument `mask` to be a mask, as `draw_mask` returns it"):
        extract_slim(Residual(), mask)


def test_an_example_input_that_does_not_fit_is_not_the_networks_fault() -> None:
    network = Residual()
    mask = draw(network, 0.5)
    with pytest.raises(ValueError, match="Expected the network to run on `example_input`, but it failed"):
        extract_slim(network, mask, example_input=torch.zeros(1, 5, 8, 8))


def test_an_example_input_may_be_given_in_every_form() -> None:
    network = Residual()
    mask = draw(network, 0.5)
    image = torch.randn(2, 3, 8, 8)
    for example in (image, (image,), [image], {"x": image}):
        extract_slim(network, mask, example)


def test_half_precision_networks_are_cut_as_they_are() -> None:
    network = Residual().half()
    slim = extract_slim(network, draw(network, 0.5, IMAGE[0].half()))
    assert {p.dtype for p in slim.parameters()} == {torch.float16}


def test_a_slim_network_has_the_memory_format_of_the_dense_one() -> None:
    network = torchvision.models.resnet18(num_classes=5).to(memory_format=torch.channels_last)
    slim = extract_slim(network, draw(network, 0.5))
    for name, weight in slim.named_parameters():
        assert weight.dim() != 4 or weight.is_contiguous(memory_format=torch.channels_last), name
    plain = extract_slim(network.to(memory_format=torch.contiguous_format), draw(network, 0.5))
    assert all(weight.is_contiguous() for weight in plain.parameters())


def test_tied_weights_stay_tied() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
    network[2].weight = network[1].weight
    slim = extract_slim(network, draw(network, 0.5, torch.zeros(1, 4)))
    assert slim[2].weight is slim[1].weight
    assert slim[1].weight.shape == (3, 3)


def test_cutting_stops_at_the_borders_of_a_target() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1))
            self.head = nn.Sequential(nn.Conv2d(6, 8, 1), nn.Conv2d(8, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.backbone(x))

    network = Parts()
    structure = decide_structure(network, [Call("", IMAGE)], 0.5, target="backbone")
    assert all(name.startswith("backbone.") for name in structure.cuts)
    mask = Mask.from_structure(structure, {name: tuple(p.shape) for name, p in network.named_parameters()})
    slim = extract_slim(network, mask)
    assert [tuple(p.shape[:2]) for p in slim.parameters() if p.dim() > 1] == [(4, 3), (4, 4), (6, 4), (8, 6), (4, 8)]


def test_several_calls_are_proved_each() -> None:
    network = nn.ModuleDict({"a": Residual(), "b": Residual(16)})
    structure = decide_structure(network, [Call("a", IMAGE), Call("b", IMAGE)], 0.5)
    mask = Mask.from_structure(structure, {name: tuple(p.shape) for name, p in network.named_parameters()})
    slim = extract_slim(network, mask)
    assert (slim["a"].stem.out_channels, slim["b"].stem.out_channels) == (4, 8)


class Flipped(nn.Module):
    """Turns its channels around in the slim network alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[1] == 8 else x.flip(1)


class Silent(nn.Module):
    """Returns class numbers, or nothing that could be compared."""

    def __init__(self, returned: str) -> None:
        super().__init__()
        self.stem, self.flip, self.head, self.returned = nn.Linear(5, 8), Flipped(), nn.Linear(8, 4), returned

    def forward(self, x: Tensor) -> Any:
        y = self.head(self.flip(self.stem(x).tanh()))
        return y.argsort(1) if self.returned == "numbers" else y[:, :0]


@pytest.mark.parametrize("returned", ["numbers", "nothing"])
def test_networks_that_return_nothing_continuous_are_proved_all_the_same(returned: str) -> None:
    network = Silent(returned)
    mask = draw(network, 0.5, torch.zeros(3, 5))
    with pytest.raises(SlimError, match="Expected the slim network to compute"):
        extract_slim(network, mask)
    network.flip = nn.Identity()
    extract_slim(network, mask)


def test_a_proof_does_not_depend_on_the_default_device() -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.arange(6))

    network = Shifted(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    mask = draw(network, 0.5, torch.zeros(1, 6))
    with torch.device("meta"):  # stands for a GPU
        slim = extract_slim(network, mask)
    assert torch.equal(slim[3].weight, network[3].weight[:, :4])
