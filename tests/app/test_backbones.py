"""Backbones by name: width, stem, channels, image size, weights from files, and what is refused."""

import os
import re
import sys

import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from lightning_ke.app.backbones import timm_backbone, torchvision_backbone
from lightning_ke.app.widths import with_width


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11_bn", "densenet169", "googlenet", "mobilenet_v2"])
def test_full_width_is_torchvision_s_own_network(name):
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    with torch.device("meta"):
        network = torchvision_backbone(name, num_classes=7)
        own = models.get_model(name, weights=None, num_classes=7, **options)
    shapes = {key: value.shape for key, value in own.state_dict().items()}
    assert {key: value.shape for key, value in network.state_dict().items()} == shapes


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_a_narrow_resnet_has_narrow_layers_everywhere(name, stem):
    network = torchvision_backbone(name, num_classes=7, width=0.5, stem=stem).eval()
    full = models.get_model(name, weights=None)
    for key, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            wide = full.get_submodule(key)
            assert module.weight.shape[0] * 2 == wide.weight.shape[0], key
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_half_width_has_the_parameters_of_the_paper_s_slim_network():
    assert parameters(torchvision_backbone("resnet18", num_classes=102, width=0.5)) == 2_825_094


def test_a_narrow_resnet_starts_from_torchvision_s_initial_weights():
    torch.manual_seed(0)
    narrow = torchvision_backbone("resnet18", num_classes=7, width=0.5).layer3[1].conv2.weight
    assert narrow.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
    assert narrow.mean().abs() < 0.01


def test_a_small_stem_keeps_small_images_large():
    network = torchvision_backbone("resnet18", num_classes=7, stem="small")
    seen = []
    network.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    network.eval()(torch.zeros(1, 3, 28, 28))
    assert seen == [28]


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0"])
def test_other_numbers_of_channels(name):
    network = torchvision_backbone(name, num_classes=7, in_channels=1).eval()
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "googlenet", "width": 0.5}, "`backbone.width` to be 1 for googlenet, but got 0.5"),
        ({"name": "vgg11_bn", "stem": "small"}, "`backbone.stem` to be 'imagenet' for vgg11_bn, but got 'small'"),
        ({"name": "resnet18", "width": 0}, "`backbone.width` to be greater than 0 and finite, but got 0"),
        ({"name": "resnet18", "width": float("nan")}, "`backbone.width` to be greater than 0 and finite, but got nan"),
        ({"name": "resnet18", "width": 0.001}, "`backbone.width` to leave at least one channel"),
        ({"name": "resnet18", "stem": "tiny"}, "`backbone.stem` to be 'imagenet' or 'small', but got 'tiny'"),
    ],
)
def test_what_a_network_does_not_have_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        torchvision_backbone(num_classes=7, **options)


@pytest.mark.parametrize("name", ["densenet121", "vgg11_bn", "mnasnet1_0", "shufflenet_v2_x1_0", "mobilenet_v2"])
def test_other_families_have_a_width_too(name):
    with torch.device("meta"):
        full, half = torchvision_backbone(name, num_classes=7), torchvision_backbone(name, num_classes=7, width=0.5)
    assert 0.2 < parameters(half) / parameters(full) < 0.45
    if name == "vgg11_bn":  # takes 20 s to be initialised
        return
    narrow = torchvision_backbone(name, num_classes=7, width=0.25, image_size=64)
    assert narrow.training
    assert all(parameter.isfinite().all() for parameter in narrow.parameters())


def test_a_network_of_full_width_is_rebuilt_exactly():
    """Rebuilding by a width of 1 gives the published layers."""
    for name in ("densenet169", "vgg13", "shufflenet_v2_x0_5", "mnasnet0_75"):
        with torch.device("meta"):
            own = torchvision_backbone(name, num_classes=7)
            again = with_width(own, 1.0, "imagenet", 7)
        assert {k: v.shape for k, v in own.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (torchvision_backbone, "vit_b_32"),
        (torchvision_backbone, "swin_t"),
        (torchvision_backbone, "googlenet"),
        (timm_backbone, "resnet10t"),
        (timm_backbone, "vit_tiny_patch16_224"),
        (timm_backbone, "convnext_atto"),
        (timm_backbone, "mobilenetv3_small_050"),
    ],
)
def test_networks_are_adapted_to_size_and_channels(make, name):
    network = make(name, num_classes=7, in_channels=1, image_size=64).eval()
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


@pytest.mark.slow
def test_every_network_of_torchvision_is_built_on_paper():
    """Without memory or time: on the meta device."""
    # Of RegNets one is enough, because they compute their widths with tensors; it is built in earnest.
    names = [name for name in models.list_models(module=models) if not name.startswith("regnet")]
    for name in (*names, "regnet_y_400mf"):
        with torch.device("cpu" if name.startswith("regnet") else "meta"):
            network = torchvision_backbone(name, num_classes=7, in_channels=1)
        last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
        assert last.weight.shape[0] == 7, name
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        assert first.weight.shape[1] == 1, name


@pytest.mark.parametrize("name", ["alexnet", "vit_b_16", "maxvit_t"])
def test_a_size_that_a_network_does_not_take_is_refused(name):
    with pytest.raises(ValueError, match=rf"Expected {name} to take images of 20 px, but it does not: .*`image_size`"):
        torchvision_backbone(name, num_classes=7, image_size=20)


def test_unknown_names_are_answered_with_the_nearest_of_both_libraries():
    with pytest.raises(
        ValueError, match=r"torchvision has, but got 'resnet81'\. The nearest are .*resnet18.*\(backbone="
    ):
        torchvision_backbone("resnet81", num_classes=7)
    with pytest.raises(ValueError, match=r"that torchvision has, .* convnext_pico.* \(backbone=timm\)"):
        torchvision_backbone("convnext_pico", num_classes=7)
    with pytest.raises(ValueError, match=r"that timm has, .* maxvit_t.* \(backbone=torchvision\)"):
        timm_backbone("maxvit_t", num_classes=7)
    with pytest.raises(ValueError, match=r"list_models"):
        torchvision_backbone("nonsense", num_classes=7)  # no way of writing senet154


def test_missing_timm_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "lightning-ke\[timm\]"'):
        timm_backbone("resnet18", num_classes=7)


# Weights from files -----------------------------------------------------------------------------------------------


def written(path, state):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("make", "name"),
    [(torchvision_backbone, "resnet18"), (torchvision_backbone, "squeezenet1_1"), (timm_backbone, "resnet10t")],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_all_but_a_classifier_of_another_size_comes_from_the_file(tmp_path, caplog, make, name, suffix):
    there = make(name, num_classes=9)
    file = written(tmp_path / f"weights{suffix}", there.state_dict())
    with caplog.at_level("INFO"):
        here = make(name, num_classes=7, weights=file)
    assert "which tells 9 classes apart there and 7 here" in caplog.text
    same = [key for key, value in here.state_dict().items() if torch.equal(value, there.state_dict().get(key))]
    assert len(here.state_dict()) - len(same) == 2
    same_size = make(name, num_classes=9, weights=file)
    assert all(
        torch.equal(a, b) for a, b in zip(same_size.state_dict().values(), there.state_dict().values(), strict=True)
    )


def test_wrapped_and_prefixed_weights_are_found(tmp_path):
    there = torchvision_backbone("resnet18", num_classes=7)
    state = {f"module.backbone.{name}": value for name, value in there.state_dict().items()}
    for content in ({"state_dict": state, "epoch": 3}, {"model": state | {"module.loss.weight": torch.ones(1)}}, state):
        here = torchvision_backbone("resnet18", num_classes=7, weights=written(tmp_path / "it.pth", content))
        assert torch.equal(here.fc.weight, there.fc.weight)


def test_published_densenets_have_older_names(tmp_path):
    there = torchvision_backbone("densenet121", num_classes=7)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): v for name, v in there.state_dict().items()
    }
    assert any(".norm.1." in name for name in old)
    here = torchvision_backbone("densenet121", num_classes=7, weights=written(tmp_path / "it.pth", old))
    assert all(torch.equal(a, b) for a, b in zip(here.state_dict().values(), there.state_dict().values(), strict=True))


def test_heads_that_only_training_uses_are_left_out(tmp_path):
    published = models.googlenet(weights=None, init_weights=False).state_dict()
    assert any(name.startswith("aux1.") for name in published)
    torchvision_backbone("googlenet", num_classes=7, weights=written(tmp_path / "it.pth", published))


def test_weights_that_do_not_fit_are_refused(tmp_path):
    state = torchvision_backbone("resnet18", num_classes=7).state_dict()
    file = written(tmp_path / "resnet18.pth", state)
    for options, sentence in (
        ({"name": "resnet34"}, r"`layer1\.2\.conv1\.weight` is missing there"),
        ({"name": "resnet18", "width": 0.5}, r"`conv1\.weight` is 64x3x7x7 there and 32x3x7x7 here"),
        ({"name": "resnet18", "in_channels": 1}, r"`conv1\.weight` is 64x3x7x7 there and 64x1x7x7 here"),
    ):
        with pytest.raises(ValueError, match=sentence):
            torchvision_backbone(**options, num_classes=7, weights=file)
    with pytest.raises(FileNotFoundError, match=r"`backbone\.weights` to be a file, but there is none"):
        torchvision_backbone("resnet18", num_classes=7, weights=tmp_path / "none.pth")
    with pytest.raises(ValueError, match="to hold a network's weights, but it holds none"):
        torchvision_backbone("resnet18", num_classes=7, weights=written(tmp_path / "empty.pth", {"epoch": 3}))


def test_weights_that_are_cut_off_are_refused(tmp_path):
    file = written(tmp_path / "it.safetensors", torchvision_backbone("squeezenet1_1", num_classes=7).state_dict())
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="to be a complete safetensors file, but it cannot be read"):
        torchvision_backbone("squeezenet1_1", num_classes=7, weights=file)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_a_file_of_weights_runs_no_code(tmp_path):
    torch.save({"state_dict": Trap()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="to hold tensors and plain values only"):
        torchvision_backbone("resnet18", num_classes=7, weights=tmp_path / "evil.pth")
    assert not (tmp_path / "sprung").exists()
