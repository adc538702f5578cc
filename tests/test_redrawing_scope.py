"""The redraw: which parameters it reaches, what it says of the others, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from lightning_ke.keyed_rng import stable_seed
from lightning_ke.redrawing import match_patterns, redraw
from lightning_ke.splits import draw_mask
from tests.redrawing import all_reset, small_cnn, snapshot


def test_bare_parameters_are_kept_and_named() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.full((4,), 0.1))

        def reset_parameters(self) -> None:
            self.gamma.fill_(1e-5)

    class Partly(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.extra = nn.Parameter(torch.ones(4, 4))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.ones(1, 1, 4))
            self.fc = Partly()
            self.scale = Scale()
            self.slope = nn.PReLU(4)

    net = Net()
    before = snapshot(net)
    report = redraw(net, all_reset(net), generation=2)
    assert set(report.redrawn) == {"fc.weight", "fc.bias"}
    assert set(report.kept_bare) == {"token", "fc.extra", "scale.gamma", "slope.weight"}
    assert all(torch.equal(value, before[name]) for name, value in snapshot(net).items() if name in report.kept_bare)


def test_recurrent_embedding_attention_and_nested_layers_are_redrawn_as_they_were_built() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(200, 16, padding_idx=0)
            self.lstm = nn.LSTM(16, 16, num_layers=2, bidirectional=True)
            self.attention = nn.MultiheadAttention(16, 2, add_bias_kv=True)
            self.bilinear = nn.Bilinear(4, 4, 4)

    torch.manual_seed(0)
    fresh, net = Tokens(), Tokens()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(50)
    report = redraw(net, all_reset(net), generation=2)
    assert set(report.redrawn) == {name for name, _ in net.named_parameters()}
    for (name, drawn), built in zip(net.named_parameters(), fresh.parameters(), strict=True):
        assert drawn.abs().max() < 10, name
        if drawn.numel() >= 64:
            assert float(drawn.detach().std()) == pytest.approx(float(built.detach().std()), rel=0.35), name
    assert (net.tokens.weight[0] == 0).all()
    assert (net.attention.out_proj.bias == 0).all()
    # cuDNN's and the CPU's flat weights are the very parameters.
    assert all(a is b for a, b in zip(net.lstm._flat_weights, net.lstm.parameters(), strict=True))


def test_a_parents_reset_that_also_resets_its_children_draws_only_its_own() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4, bias=False)
            self.bias = nn.Parameter(torch.ones(4))

        def reset_parameters(self) -> None:
            self.lin.reset_parameters()
            self.bias.data.zero_()

    net, twin = nn.Sequential(Graph()), nn.Linear(4, 4, bias=False)
    assert redraw(net, all_reset(net), generation=2).redrawn == {"0.bias": 4, "0.lin.weight": 16}
    torch.manual_seed(stable_seed(0, 2, "0.lin"))
    twin.reset_parameters()
    assert torch.equal(net[0].lin.weight, twin.weight)
    assert (net[0].bias == 0).all()


def test_a_tied_weight_is_redrawn_once_as_its_first_owner_does() -> None:
    net = nn.ModuleDict({"embed": nn.Embedding(50, 40), "head": nn.Linear(40, 50, bias=False)})
    net["head"].weight = net["embed"].weight
    report = redraw(net, all_reset(net), generation=2)
    assert report.redrawn == {"embed.weight": 2000}
    assert net["head"].weight is net["embed"].weight
    assert float(net["embed"].weight.detach().std()) == pytest.approx(1, abs=0.1)


def test_frozen_excluded_and_unoptimized_parameters_are_kept_and_named() -> None:
    net = nn.ModuleDict({name: nn.Linear(3, 3, bias=False) for name in ("frozen", "excluded", "loose", "free")})
    net["frozen"].requires_grad_(False)
    before = snapshot(net)
    report = redraw(
        net,
        all_reset(net),
        generation=2,
        exclude=["excl*.weight"],
        only={"frozen.weight", "excluded.weight", "free.weight"},
    )
    assert report.redrawn == {"free.weight": 9}
    assert report.kept_frozen == ("frozen.weight",)
    assert report.kept_excluded == ("excluded.weight",)
    assert report.kept_unoptimized == ("loose.weight",)
    assert all(torch.equal(before[name], value) for name, value in snapshot(net).items() if name != "free.weight")


def test_a_redraw_that_finds_nothing_says_so() -> None:
    net = small_cnn().requires_grad_(False)
    report = redraw(net, draw_mask(net, "wels"), generation=2)
    assert report.total == 0
    assert report.redrawn == {}


def test_patterns_that_match_nothing_are_refused() -> None:
    names = ["head.weight", "head.bias", "body.weight"]
    assert match_patterns(["head.*", "*.weight"], names) == set(names)
    assert match_patterns((), names) == set()
    with pytest.raises(ValueError, match=r"'head' matches none.*Did you mean 'head\.\*'\?"):
        match_patterns(["head"], names)
    with pytest.raises(ValueError, match=r"'haed\.weight' matches none.*Did you mean 'head\.weight'"):
        match_patterns(["haed.weight"], names)
    with pytest.raises(
        ValueError, match=r"'stem' matches none\. .* Some of them are 'head\.weight', 'head\.bias', 'body\."
    ):
        match_patterns(["stem"], names)
    with pytest.raises(TypeError, match=r"sequence of patterns, but got the string 'head\.\*'"):
        match_patterns("head.*", names)


def test_a_mask_of_another_network_is_refused() -> None:
    net = small_cnn()
    with pytest.raises(ValueError, match=r"but it has nothing for `0\.weight`"):
        redraw(net, all_reset(nn.Linear(2, 2)), generation=2)
    with pytest.raises(ValueError, match=r"has shape \(2, 2\) for `weight` of shape \(3, 2\)"):
        redraw(nn.Linear(2, 3), all_reset(nn.Linear(2, 2)), generation=2)


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({"model": None}, TypeError, "`model` to be a network"),
        ({"mask": None}, TypeError, "`mask` to be a mask, as `draw_mask` returns it, but got a NoneType"),
        ({"mask": {"weight": torch.ones(2, 2)}}, TypeError, "`mask` .* got a dict. .*`Mask.from_tensors`"),
        ({"seed": None}, ValueError, "`seed` to be a whole number"),
        ({"seed": 1.5}, ValueError, "`seed` to be a whole number"),
        ({"exclude": None}, TypeError, "`exclude` to be a sequence of patterns, but got None"),
        ({"exclude": (5,)}, TypeError, "`exclude` to be a sequence of patterns, but got"),
    ],
    ids=str,
)
def test_nonsense_is_refused(wrong: dict[str, object], error: type[Exception], sentence: str) -> None:
    layer = nn.Linear(2, 2)
    arguments: dict[str, object] = {"model": layer, "mask": draw_mask(layer, "wels"), "generation": 2}
    with pytest.raises(error, match=f"Expected argument {sentence}"):
        redraw(**{**arguments, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("generation", [0, -1, 1.5, True, "2"])
def test_a_generation_that_is_none_is_refused(generation: object) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Expected argument `generation` to be a whole number of at least 1"):
        redraw(net, all_reset(net), generation=generation)


def test_an_unknown_norm_rule_is_refused() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Expected argument `norm` to be 'keep' or 'reset', but got 'both'"):
        redraw(net, all_reset(net), generation=2, norm="both")


def test_a_reset_that_fails_is_named() -> None:
    class Failing(nn.Linear):
        built = False

        def reset_parameters(self) -> None:
            if self.built:
                raise KeyError("gain")
            super().reset_parameters()

    net = nn.Sequential(Failing(2, 2))
    net[0].built = True
    with pytest.raises(RuntimeError, match=r"Expected `0` \(Failing\) to redraw .* failed with KeyError"):
        redraw(net, all_reset(net), generation=2)


def test_a_failed_redraw_gives_the_global_stream_back() -> None:
    class Failing(nn.Linear):
        def reset_parameters(self) -> None:
            if getattr(self, "built", False):
                torch.rand(3)
                raise KeyError("gain")

    net = Failing(2, 2)
    net.built = True
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        redraw(net, all_reset(net), generation=2)
    assert torch.equal(state, torch.get_rng_state())


def test_a_compiled_network_is_not_compiled_again() -> None:
    net = small_cnn().eval()
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter)
    x = torch.randn(2, 3, 4, 4)
    first = compiled(x)
    frames = counter.frame_count
    for generation in (2, 3):
        redraw(compiled, draw_mask(net, "wels"), generation=generation)
        second = compiled(x)
    assert counter.frame_count == frames > 0
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, net(x))


def test_an_optimizer_keeps_training_the_same_tensors() -> None:
    net = small_cnn()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    redraw(net, draw_mask(net, "wels"), generation=2)
    before = copy.deepcopy(net[0].weight.detach())
    net(torch.randn(4, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(net[0].weight, before)
