"""Operations and parameters."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from lightning_ke.cost import Cost, measure_cost


def test_convolution_and_linear_by_hand() -> None:
    convolution = nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False)
    network = nn.Sequential(convolution, nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 9, 5))
    # 6 filters of 2 x 3 x 3 at 3 x 3 positions; 54 x 5 for the linear layer; two operations each.
    assert measure_cost(network, torch.zeros(1, 4, 8, 8)) == Cost(2 * (6 * 18 * 9 + 54 * 5), 6 * 18 + 12 + 54 * 5 + 5)


@pytest.mark.parametrize(("padding", "positions"), [("same", 49), ("valid", 25)])
def test_a_padding_may_be_given_by_its_name(padding: str, positions: int) -> None:
    convolution = nn.Conv2d(4, 6, 3, padding=padding, bias=False)
    assert measure_cost(convolution, torch.zeros(2, 4, 7, 7)).ops == 2 * 6 * 4 * 9 * positions


def test_transposed_convolution_by_hand() -> None:
    network = nn.ConvTranspose1d(3, 5, 4, stride=2)
    assert measure_cost(network, torch.zeros(1, 3, 7)).ops == 2 * 7 * 3 * 5 * 4


def test_attention_counts_both_products() -> None:
    network = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(1, 5, 8)
    assert measure_cost(network, (x, x, x)).ops == 2 * (5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_sample_costs_the_same_in_any_batch(batch: int) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 3))
    single = measure_cost(network, {"input": torch.zeros(1, 3, 8, 8)})
    assert measure_cost(network, torch.zeros(batch, 3, 8, 8)) == single


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_state_that_begins_as_zeros_is_one_of_each_sample(batch: int) -> None:
    gru, cell = nn.GRU(4, 8, batch_first=True), nn.LSTMCell(4, 8)
    assert measure_cost(gru, torch.zeros(batch, 5, 4)).ops == 2 * 5 * 3 * 8 * (4 + 8)
    assert measure_cost(cell, torch.zeros(batch, 4)).ops == 2 * 4 * 8 * (4 + 8)


class Learned(nn.Module):
    """Queries that are repeated for every sample, and a table that is computed once for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.state = nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(1, 1, 4))
        self.layer, self.table, self.rnn = nn.Linear(4, 6), nn.Linear(4, 6), nn.GRU(6, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries = self.layer(self.queries.expand(len(x), -1, -1)) + self.table(torch.ones(3, 4)).sum(0)
        return x + self.rnn(queries, self.state.repeat(1, len(x), 1))[0]


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_what_is_computed_of_no_input_costs_once_or_for_every_sample(batch: int) -> None:
    once, each = 2 * 3 * 4 * 6, 2 * 5 * (4 * 6 + 3 * 4 * (4 + 6))
    assert measure_cost(Learned(), torch.zeros(batch, 5, 4)).ops == once + each


def test_a_network_for_batches_of_one_size_computes_once_what_no_input_enters() -> None:
    class Sized(Learned):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(self.queries) + self.layer(x.view(3, 5, 4))

    assert measure_cost(Sized(), torch.zeros(3, 5, 4)).ops == 2 * 2 * 5 * 4 * 6


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(), (5,)], ids=["vectors", "tokens"])
def test_a_product_with_a_vector_counts(batch: int, shape: tuple[int, ...]) -> None:
    class Score(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    assert measure_cost(Score(), torch.zeros(batch, *shape, 6)).ops == 2 * 6 * max(sum(shape), 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_bilinear_layer_costs_what_its_two_products_do(batch: int) -> None:
    class Products(nn.Bilinear):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bi,oij,bj->bo", left, self.weight, right)

    inputs = torch.zeros(batch, 3), torch.zeros(batch, 4)
    costs = [measure_cost(kind(3, 4, 5, bias=False), inputs) for kind in (nn.Bilinear, Products)]
    assert costs == [Cost(2 * (3 * 4 * 5 + 5 * 4), 60)] * 2


def test_a_tied_parameter_counts_once() -> None:
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    network[1].weight = network[0].weight
    assert measure_cost(network, torch.zeros(1, 4)) == Cost(2 * 2 * 16, 16)


@pytest.mark.parametrize(
    ("name", "ops", "params"),
    [
        ("resnet18", 3.633, 11.28),
        ("resnet34", 7.334, 21.39),
        ("resnet50", 8.196, 23.92),
        ("googlenet", 3.001, 5.80),
        ("densenet121", 5.707, 7.16),
        ("densenet169", 6.767, 12.82),
    ],
)
def test_published_costs(name: str, ops: float, params: float) -> None:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, num_classes=200, **options)
    cost = measure_cost(network, torch.zeros(1, 3, 224, 224))
    # The published operations include normalisation and activations, up to 1.5 % of them.
    assert 0.985 * ops <= cost.ops / 1e9 <= ops
    assert cost.params / 1e6 == pytest.approx(params, abs=0.006)


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    measure_cost(network, torch.ones(2, 3, 8, 8))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_looks_at_values_is_counted_with_data() -> None:
    class Looks(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if x.sum().item() > 0 else -x)

    assert measure_cost(Looks(3, 4), torch.ones(2, 3)) == Cost(24, 16)


def test_an_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="Expected argument `model` to be a network"):
        measure_cost(None, torch.zeros(1, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected the network to run on `example_input`"):
        measure_cost(nn.Linear(3, 4), torch.ones(2, 5))


def test_reads_well() -> None:
    assert str(Cost(3_633_000_000, 950)) == "3.633 G operations, 950 parameters"
